"""What an operator asks of the dashboard over the local socket: a report of the shift, the way of one utterance."""

from collections.abc import Mapping

import msgspec

from quickcomm.dashboard.module import Dashboard
from quickcomm.entrypoints.trace_administration import trace_command
from quickcomm.kernel.runtime.admin_socket import Answer, Arguments, Command


def page_commands(dashboard: Dashboard) -> Mapping[str, Command]:
    async def report(arguments: Arguments) -> Answer:
        since = arguments.get("since_ns")
        site = str(arguments.get("site") or "main")
        return [msgspec.to_builtins(await dashboard.shift_report(site, None if since is None else int(since)))]

    return {"report": report, **trace_command(dashboard.waterfall)}
