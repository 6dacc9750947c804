"""REST of reports: the shift, and what the language model costs."""

from datetime import UTC, datetime

import msgspec
from aiohttp import web

from quickcomm.contracts.usage import DayUsage, UsageReport
from quickcomm.dashboard.adapters import parameters
from quickcomm.dashboard.adapters.report_operations import NARRATIVES
from quickcomm.dashboard.ports import UsageSource
from quickcomm.dashboard.service.reporting import ShiftReports
from quickcomm.kernel.keys import Principal


class ReportRest:
    def __init__(self, reports: ShiftReports, usage: UsageSource | None) -> None:
        self._reports = reports
        self._usage = usage

    async def shift(self, request: web.Request, principal: Principal) -> web.Response:
        query = request.query
        report = await self._reports.shift(
            principal.site,
            parameters.time_ns(query, "since"),
            parameters.time_ns(query, "until"),
            ask=parameters.choice(query, "narrative", NARRATIVES) != "local",
        )
        return _json(report)

    async def usage(self, request: web.Request, principal: Principal) -> web.Response:
        conversation = parameters.text(request.query, "conversation")
        limit = parameters.page(request.query).limit
        if self._usage is None:
            return _json(UsageReport(today=DayUsage(day=datetime.now(UTC).date().isoformat())))
        return _json(await self._usage(principal.site, conversation, limit))


def _json(value: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
