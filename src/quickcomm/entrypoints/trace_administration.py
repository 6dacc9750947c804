"""`trace` over the administration socket, or on the data of a server that does not run."""

from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

if TYPE_CHECKING:
    from quickcomm.dashboard.module import WaterfallView
    from quickcomm.kernel.runtime.admin_socket import Answer, Arguments, Command
    from quickcomm.kernel.storage import Database

TRACE: Final = "trace"


class FindWaterfall(Protocol):
    def __call__(self, utterance_id: str, site: str | None = None) -> Awaitable["WaterfallView"]: ...


def trace_command(find: FindWaterfall) -> "Mapping[str, Command]":
    async def trace(arguments: "Arguments") -> "Answer":
        site = arguments.get("site")
        view = await find(str(arguments["utterance_id"]), None if site is None else str(site))
        flat: dict[str, Any] = msgspec.to_builtins(view)
        return [flat | flat.pop("waterfall")]

    return {TRACE: trace}


def offline_trace(database: "Database", data_dir: Path) -> "Mapping[str, Command]":
    from quickcomm.dashboard.module import Dashboard  # noqa: PLC0415 - the whole server; other commands do without
    from quickcomm.entrypoints.settings import load_settings  # noqa: PLC0415
    from quickcomm.kernel.telemetry.settings import budget_with_model  # noqa: PLC0415

    settings = load_settings(data_dir)
    budget = budget_with_model(settings.budgets, settings.llm.budget_s if settings.llm.url else 0.0)

    async def find(utterance_id: str, site: str | None = None) -> "WaterfallView":
        return await Dashboard.stored_waterfall(database, budget, utterance_id, site)

    return trace_command(find)
