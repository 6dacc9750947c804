"""The commands around prompt versions, for the administration socket: plain values in, plain values out."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from quickcomm.entrypoints.intelligence_settings import load_intelligence_settings
from quickcomm.intelligence.module import Intelligence, Prompting, StoredPrompt, labelled_set
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.runtime.admin_socket import Answer, Arguments, Command
from quickcomm.kernel.site_pack import load_pack
from quickcomm.kernel.storage import Database


class PromptAdministration:
    """`evaluate` answers when it is done; with the caller's `ticket`, `progress` tells meanwhile how far it is."""

    def __init__(self, prompting: Prompting) -> None:
        self._desk = prompting.desk
        self._pack = prompting.pack
        self._progress: dict[str, tuple[int, int]] = {}

    def commands(self) -> Mapping[str, Command]:
        return {
            "prompts.list": self._list,
            "prompts.show": self._show,
            "prompts.audit": self._audit,
            "prompts.evaluate": self._evaluate,
            "prompts.progress": self._tell,
            "prompts.deploy": self._deploy,
            "prompts.rollback": self._rollback,
        }

    async def _list(self, _arguments: Arguments) -> Answer:
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

    async def _show(self, arguments: Arguments) -> Answer:
        stored = await self._desk.source(arguments["name"])
        return [{"id": stored.id, "name": stored.name, "note": stored.note, "source": stored.source}]

    async def _audit(self, arguments: Arguments) -> Answer:
        view = await self._desk.view(int(arguments["limit"]))
        return [msgspec.to_builtins(event) for event in view.events]

    async def _evaluate(self, arguments: Arguments) -> Answer:
        path = Path(arguments["set"]) if arguments.get("set") else None
        labelled = await asyncio.to_thread(labelled_set, self._pack, path, int(arguments["limit"]))
        prompt = await self._meant(arguments)
        ticket = str(arguments.get("ticket") or "")

        def tell(done: int, total: int) -> None:
            self._progress[ticket] = (done, total)

        try:
            done = await self._desk.evaluate(
                prompt, labelled, arguments["by"], concurrency=int(arguments["concurrency"]), progress=tell
            )
        finally:
            self._progress.pop(ticket, None)
        return [msgspec.to_builtins(done)]

    async def _tell(self, arguments: Arguments) -> Answer:
        done, total = self._progress.get(str(arguments["ticket"]), (0, 0))
        return [{"done": done, "total": total}]

    async def _deploy(self, arguments: Arguments) -> Answer:
        prompt = await self._meant(arguments)
        record = await self._desk.deploy(
            prompt, arguments["by"], weight=int(arguments["weight"]), force=bool(arguments["force"])
        )
        return [_row(record, prompt.name)]

    async def _rollback(self, arguments: Arguments) -> Answer:
        return [_row(await self._desk.rollback(arguments["by"]))]

    async def _meant(self, arguments: Arguments) -> StoredPrompt:
        """The file that was handed in, kept from now on, or a version that is known."""
        if arguments.get("source") is not None:
            return await self._desk.add(arguments["source"], arguments["by"], arguments["name"])
        return await self._desk.source(arguments["name"])


def _row(record: msgspec.Struct, name: str = "") -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(record)
    del row["evidence"], row["at_ns"]
    return {**row, "name": name} if name else row


def offline_commands(database: Database, clock: Clock, data_dir: Path) -> Mapping[str, Command]:
    """For a directory on which no server runs: all but evaluating."""
    Intelligence.migrate_tables(database)
    prompting = Prompting(database, load_pack(load_intelligence_settings(data_dir, {}).pack), clock)
    return PromptAdministration(prompting).commands()
