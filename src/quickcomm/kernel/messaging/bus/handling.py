"""What becomes of a batch in a handler's hands: tried as a whole, then message by message. Used by every bus."""

import contextlib
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import MALFORMED, BusyError, UnavailableError
from quickcomm.kernel.messaging.bus.port import BusUnavailableError, Delivery, Handler, RejectedError
from quickcomm.kernel.telemetry import tracing

MAX_ATTEMPTS: Final = 5
LETTERS_AT_MOST: Final = 10_000
"""Dead letters that are kept; the oldest go first. What still works must not stop for what fails again and again."""
LETTERS_ALARM: Final = "bus.dead_letters"
BACKOFF_S: Final = (0.05, 0.2, 1.0, 3.0)

log = structlog.get_logger(__name__)


async def handle(group: str, batch: Sequence[Delivery], handler: Handler, clock: Clock) -> list[tuple[Delivery, str]]:
    """Handle the batch; what fails is tried alone, so that it cannot hold up its neighbours. Returns the failed."""
    try:
        with tracing().call(f"process {batch[0].stream}", "consumer", links=lambda: producers(batch)) as call:
            call.note(
                messaging__destination__name=batch[0].stream,
                messaging__consumer__group__name=group,
                messaging__batch__message_count=len(batch),
                messaging__operation__type="process",
            )
            await handler(batch)
    except Exception as error:  # noqa: BLE001 - whatever a handler raises, the stream goes on
        log.info("bus.batch_failed", group=group, messages=len(batch), error=type(error).__name__)
    else:
        return []
    failed = []
    for delivery in batch:
        reason = await _handle_alone(group, delivery, handler, clock)
        if reason is not None:
            failed.append((delivery, reason))
    return failed


def letters_alarm(count: int) -> tuple[str, str]:
    """Return the alarm, a code and words for an operator, for so many dead letters."""
    lost = f" Only the newest {LETTERS_AT_MOST} are kept." if count >= LETTERS_AT_MOST else ""
    said = (
        f"{count} messages could not be handled.{lost} See why, then replay or drop them: quickcomm dead-letters list"
    )
    return LETTERS_ALARM, said


class Carried(msgspec.Struct):
    """What every message may carry, whatever it is about. `owner`: the side that is to answer it, in an epoch."""

    traceparent: str | None = None
    published_ns: int = 0
    at_ns: int = 0
    utterance_id: str = ""
    owner: str = ""
    owner_epoch: int = 0


_carriers: Final = msgspec.json.Decoder(Carried)


def carried(payload: bytes) -> Carried:
    """Return what a message carries; nothing where it cannot be read."""
    with contextlib.suppress(*MALFORMED):
        return _carriers.decode(payload)
    return Carried()


def producers(batch: Sequence[Delivery]) -> list[str | None]:
    """The `traceparent` of each message that has one: those whose work caused this."""
    return [carried(delivery.payload).traceparent for delivery in batch]


def published_ns(payload: bytes) -> int:
    """Return when a message says that it was published; 0 where it does not."""
    message = carried(payload)
    return message.published_ns or message.at_ns


async def _handle_alone(group: str, delivery: Delivery, handler: Handler, clock: Clock) -> str | None:
    """Why it failed, or None. That bus or database take nothing now is no fault of the message, and not counted."""
    reason, attempt, waits = "", 1, False
    while attempt <= MAX_ATTEMPTS:
        try:
            await handler([msgspec.structs.replace(delivery, attempt=attempt, fresh=False)])
        except RejectedError as error:
            return str(error)
        except (BusyError, BusUnavailableError, UnavailableError) as error:
            if not waits:  # each of many messages, each second, would be a flood
                log.warning("bus.handler_waits", group=group, stream=delivery.stream, error=error.code)
            waits = True
            await clock.sleep(BACKOFF_S[2])
        except Exception as error:  # noqa: BLE001 - kept as the dead letter's reason
            reason = f"{type(error).__name__}: {error}"
            log.warning("bus.handler_failed", group=group, stream=delivery.stream, attempt=attempt, error=reason)
            if attempt < MAX_ATTEMPTS:
                await clock.sleep(BACKOFF_S[attempt - 1])
            attempt += 1
        else:
            return None
    return reason
