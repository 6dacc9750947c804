"""The edge as the fleet sees it: who serves a module."""

from collections.abc import Mapping, Sequence

from quickcomm.edge.module import Backend, Edge, EdgeUnavailableError


class EdgeBalancer:
    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def put(self, module: str, sockets: Sequence[str]) -> None:
        self._edge.put_endpoints(module, [Backend(socket=socket) for socket in sockets])

    async def confirmed(self) -> None:
        await self._edge.confirmed()

    async def healthy(self, module: str) -> Mapping[str, bool]:
        try:
            return await self._edge.control.healthy(module)
        except EdgeUnavailableError:
            return {}


class EdgeProbe:
    """Envoy has read all that it needs, and listens."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def __call__(self) -> bool:
        try:
            return (await self._edge.control.info()).state == "live"
        except EdgeUnavailableError:
            return False
