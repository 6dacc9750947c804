"""What becomes of a batch in a handler's hands: tried as a whole, then message by message. Used by every bus."""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from quickcomm.kernel.bus.port import BusFullError, BusUnavailableError, Delivery, Handler, RejectedError

MAX_ATTEMPTS: Final = 5
BACKOFF_S: Final = (0.05, 0.2, 1.0, 3.0)

log = structlog.get_logger(__name__)


async def handle(group: str, batch: Sequence[Delivery], handler: Handler) -> list[tuple[Delivery, str]]:
    """Handle the batch; what fails is tried alone, so that it cannot hold up its neighbours. Returns the failed."""
    try:
        await handler(batch)
    except Exception as error:  # noqa: BLE001 - whatever a handler raises, the stream goes on
        log.info("bus.batch_failed", group=group, messages=len(batch), error=type(error).__name__)
    else:
        return []
    failed = []
    for delivery in batch:
        reason = await _handle_alone(group, delivery, handler)
        if reason is not None:
            failed.append((delivery, reason))
    return failed


async def _handle_alone(group: str, delivery: Delivery, handler: Handler) -> str | None:
    """Why it failed, or None. That the bus takes no answer now is no fault of the message, and not counted."""
    reason, attempt = "", 1
    while attempt <= MAX_ATTEMPTS:
        try:
            await handler([msgspec.structs.replace(delivery, attempt=attempt, fresh=False)])
        except RejectedError as error:
            return str(error)
        except (BusFullError, BusUnavailableError) as error:
            log.warning("bus.handler_waits", group=group, stream=delivery.stream, error=error.code)
            await asyncio.sleep(BACKOFF_S[2])
        except Exception as error:  # noqa: BLE001 - kept as the dead letter's reason
            reason = f"{type(error).__name__}: {error}"
            log.warning("bus.handler_failed", group=group, stream=delivery.stream, attempt=attempt, error=reason)
            if attempt < MAX_ATTEMPTS:
                await asyncio.sleep(BACKOFF_S[attempt - 1])
            attempt += 1
        else:
            return None
    return reason
