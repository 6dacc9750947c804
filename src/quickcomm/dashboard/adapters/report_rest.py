"""REST of reports: the shift, and what the language model costs."""

import msgspec
from aiohttp import web

from quickcomm.contracts.usage import GetUsage
from quickcomm.dashboard.adapters import parameters
from quickcomm.dashboard.adapters.report_operations import NARRATIVES
from quickcomm.dashboard.service.reporting import ShiftReports
from quickcomm.kernel.keys import Principal
from quickcomm.kernel.messaging.rpc import Rpc


class ReportRest:
    def __init__(self, reports: ShiftReports, rpc: Rpc) -> None:
        self._reports = reports
        self._rpc = rpc

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
        return _json(await self._rpc.call(GetUsage(site=principal.site, conversation=conversation, limit=limit)))


def _json(value: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
