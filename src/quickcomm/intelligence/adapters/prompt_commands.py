"""Answers operators about prompt versions."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from quickcomm.contracts.commands import (
    AuditPrompts,
    DeployPrompt,
    EvaluatePrompt,
    GetProgress,
    ListPrompts,
    RollBackPrompt,
    ShowPrompt,
)
from quickcomm.contracts.prompts import PromptEvent
from quickcomm.intelligence.adapters.prompting import Prompting, labelled_set
from quickcomm.intelligence.ports import StoredPrompt
from quickcomm.intelligence.service.prompt_evaluation import Evaluation
from quickcomm.kernel.messaging.rpc import Answer

Row = dict[str, Any]


class PromptCommands:
    def __init__(self, prompting: Prompting) -> None:
        self._desk = prompting.desk
        self._pack = prompting.pack
        self._progress: dict[str, tuple[int, int]] = {}

    def answers(self) -> Sequence[Answer]:
        return [
            (ListPrompts, self._list),
            (ShowPrompt, self._show),
            (AuditPrompts, self._audit),
            (EvaluatePrompt, self._evaluate),
            (GetProgress, self._tell),
            (DeployPrompt, self._deploy),
            (RollBackPrompt, self._roll_back),
        ]

    async def _list(self, _request: ListPrompts) -> list[Row]:
        view = await self._desk.view(0)
        weights = {each.prompt.id: each.weight for each in (view.canary, view.live) if each is not None}
        live = view.live.prompt.id if view.live is not None else ""
        return [
            {
                "id": version.id,
                "name": version.name,
                "state": ("live" if version.id == live else "canary") if version.id in weights else "",
                "weight": weights.get(version.id, 0),
                "added_at": version.added_at,
                "added_by": version.added_by,
                "note": version.note,
                "problem": view.problem if version.id == live else "",
            }
            for version in view.versions
        ]

    async def _show(self, request: ShowPrompt) -> Row:
        stored = await self._desk.source(request.prompt)
        return {"id": stored.id, "name": stored.name, "note": stored.note, "source": stored.source}

    async def _audit(self, request: AuditPrompts) -> tuple[PromptEvent, ...]:
        return (await self._desk.view(request.limit)).events

    async def _evaluate(self, request: EvaluatePrompt) -> Evaluation:
        path = Path(request.labels) if request.labels else None
        labelled = await asyncio.to_thread(labelled_set, self._pack, path, request.limit)
        prompt = await self._meant(request)

        def tell(done: int, total: int) -> None:
            self._progress[request.ticket] = (done, total)

        try:
            return await self._desk.evaluate(
                prompt, labelled, request.by, concurrency=request.concurrency, progress=tell
            )
        finally:
            self._progress.pop(request.ticket, None)

    async def _tell(self, request: GetProgress) -> Row:
        done, total = self._progress.get(request.ticket, (0, 0))
        return {"done": done, "total": total}

    async def _deploy(self, request: DeployPrompt) -> Row:
        prompt = await self._meant(request)
        record = await self._desk.deploy(prompt, request.by, weight=request.weight, force=request.force)
        return _row(record) | {"name": prompt.name}

    async def _roll_back(self, request: RollBackPrompt) -> Row:
        return _row(await self._desk.rollback(request.by))

    async def _meant(self, request: EvaluatePrompt | DeployPrompt) -> StoredPrompt:
        """Return the version that was handed in, kept from now on, or one that is known."""
        if request.source is not None:
            return await self._desk.add(request.source, request.by, request.prompt)
        return await self._desk.source(request.prompt)


def _row(record: msgspec.Struct) -> Row:
    row: Row = msgspec.to_builtins(record)
    del row["evidence"], row["at_ns"]
    return row
