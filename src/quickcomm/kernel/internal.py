"""Calls between the services of a site: who may call is known by a token, which `kernel.trust` makes and checks."""

from typing import Final, Protocol

from aiohttp import web

MONOLITH: Final = "monolith"
"""The service that may call whatever any module may: all of them run in it."""


class Trust(Protocol):
    """Tokens of one service; `ServiceTrust` is the one that counts."""

    def headers(self, audience: str) -> dict[str, str]:
        """For a call to that service."""
        ...

    def require(self, request: web.Request, *callers: str) -> str:
        """Which of the callers it is. Raises `UnauthorizedError` and `ForbiddenError`."""
        ...

    async def withdrawn(self, request: web.Request) -> None:
        """Return once what vouches for the token of this request is withdrawn."""
        ...
