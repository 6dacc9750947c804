"""What became of one utterance: its receipt, and what holds it up, asked of all who may know."""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import msgspec

from quickcomm.contracts.checking import GetStanding, Standing
from quickcomm.contracts.commands import (
    AuditPrompts,
    Command,
    GetLedgers,
    GetStatus,
    GetTrace,
    ListDeadLetters,
    ListPrompts,
)
from quickcomm.contracts.prompts import PromptEvent
from quickcomm.kernel.checking.compare import Finding
from quickcomm.kernel.checking.repairs import Letter
from quickcomm.kernel.errors import InvalidInputError, NotFoundError, QuickCommError
from quickcomm.operate.administration import administer
from quickcomm.operate.causes import Known, causes, of_utterance
from quickcomm.operate.understood import understood_words, way_back
from quickcomm.operate.up.client import topology_status

ANSWER_S: Final = 10.0
EVENTS: Final = 200
Row = dict[str, Any]
T = TypeVar("T")


class Traced(msgspec.Struct, frozen=True, kw_only=True):
    """`view`: the receipt, as `GetTrace` gives it; None where there is no card.

    `understood_by`: who understood it, in words, and `back`: the command that takes its prompt version out of force.
    `unanswered`: who could not be asked, and why.
    """

    utterance_id: str
    view: Row | None
    findings: Sequence[Finding] = ()
    understood_by: str = ""
    back: str = ""
    unanswered: dict[str, str] = {}


class _Asked:
    """Asks a site; remembers who could not be asked, and why."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self.unanswered: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        """What those said that had nothing to tell."""

    async def __call__(self, request: Command, kind: type[T]) -> list[T] | None:
        return await self.guarded(request.module, self._of(request, kind))

    async def rows(self) -> list[Row]:
        """Return the rows of `quickcomm status`; none where nothing runs."""
        found = await self.guarded("up", asyncio.to_thread(topology_status, self._data_dir))
        if found:
            return found
        try:  # a server without `up`
            return await administer(self._data_dir, GetStatus(), needs_server=True, timeout_s=ANSWER_S)
        except (QuickCommError, aiohttp.ClientError, OSError):
            return []

    async def guarded(self, name: str, answer: Awaitable[T]) -> T | None:
        try:
            return await answer
        except (NotFoundError, InvalidInputError) as error:
            self.refused[name] = str(error)
        except TimeoutError:
            self.unanswered[name] = f"It does not answer within {ANSWER_S:.0f} s."
        except (QuickCommError, aiohttp.ClientError, OSError) as error:
            self.unanswered[name] = str(error)
        return None

    async def _of(self, request: Command, kind: type[T]) -> list[T]:
        rows = await administer(self._data_dir, request, timeout_s=ANSWER_S)
        return [msgspec.convert(row, kind) for row in rows]


async def trace(data_dir: Path, identifier: str, site: str | None = None) -> Traced:
    """Trace an utterance by its id, or what is said in a conversation by the id of that.

    Raises `QuickCommError` where it has no card, and nothing else is known of it.
    """
    asked = _Asked(data_dir)
    conversation_id, _, rest = identifier.partition(":")
    found = await asked(GetTrace(utterance_id=identifier, site=site), dict[str, Any])
    view = found[0] if found else None
    is_whole = view is not None and view["complete"] and not view["broke"] and not view["failed"]
    known = Known() if is_whole else await _known(asked, conversation_id, identifier if rest else "", view)
    findings = causes(known)
    if view is None and not findings:
        why = {**asked.refused, **asked.unanswered}.get(GetTrace.module, "It has no card.")
        raise NotFoundError(f"{why} Nothing of its conversation waits, and none of its messages is a dead letter.")
    understood_by, back = await _understood(asked, view)
    return Traced(
        utterance_id=identifier,
        view=view,
        findings=findings,
        understood_by=understood_by,
        back=back,
        unanswered=asked.unanswered,
    )


# -- inside -----------------------------------------------------------------------------------------------------------


async def _known(asked: _Asked, conversation_id: str, utterance_id: str, view: Row | None) -> Known:
    """Ask the store and the processes; without a card, only of a conversation that audio knows."""

    async def is_known() -> bool:
        if view is not None:
            return True
        ledgers = await asked(GetLedgers(conversation_id=conversation_id), dict[str, Any])
        return ledgers is None or bool(ledgers)

    async def of_store() -> tuple[list[Letter] | None, list[Standing] | None]:
        # One after the other: on the data of a stopped site each takes the directory.
        letters = await asked(ListDeadLetters(), Letter)
        return letters, await asked(GetStanding(conversation_id=conversation_id, utterance_id=utterance_id), Standing)

    rows, (letters, standing) = await asyncio.gather(asked.rows(), of_store())
    there = await is_known()
    mine = of_utterance(letters or (), conversation_id, utterance_id)
    if not there and not mine:
        return Known()
    return Known(
        complete=view is not None and view["complete"],
        late=view is not None and bool(view["broke"]),
        standing=standing or (),
        letters=mine,
        rows=rows,
        now_ns=time.time_ns(),
    )


async def _understood(asked: _Asked, view: Row | None) -> tuple[str, str]:
    """Return who understood it, in words, and the command that goes back to the prompt before."""
    understood = (view or {}).get("understood")
    if not understood:
        return "", ""
    if understood["prompt_version"] is None:
        return understood_words(understood, (), ()), ""
    versions = await asked(ListPrompts(), dict[str, Any]) or ()
    events = await asked(AuditPrompts(limit=EVENTS), PromptEvent) or ()
    return understood_words(understood, versions, events), way_back(understood, versions, events)
