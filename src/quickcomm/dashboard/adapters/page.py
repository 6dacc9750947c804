"""The page: files that Vite has built, under a policy that lets nothing else run."""

import re
from pathlib import Path
from typing import Final

from aiohttp import web

STATIC: Final = Path(__file__).parents[1] / "static"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "media-src 'self' blob:; connect-src 'self'; manifest-src 'self'; worker-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "camera=(), geolocation=(), payment=(), usb=(), microphone=(self)",
    "Cache-Control": "no-cache",
}
FOR_EVER: Final = "public, max-age=31536000, immutable"
NOT_BUILT: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>QuickComm</title>
<h1>The page has not been built</h1>
<p>QuickComm is running; only its page is missing. In a checkout, <code>make install</code> builds it.
The <a href="openapi.json">REST interface</a> is there already.</p></html>
"""
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}")


class PageFiles:
    def __init__(self, static: Path = STATIC) -> None:
        self._static = static

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self._index),
            web.get("/assets/{name}", self._asset),
            # Files beside the index have names of their own (favicon.svg): one path segment with a dot in it.
            web.get(r"/{name:[A-Za-z0-9_-]+\.[A-Za-z0-9.]+}", self._beside),
        ]

    async def _index(self, _request: web.Request) -> web.StreamResponse:
        index = self._static / "index.html"
        if not index.is_file():
            return web.Response(text=NOT_BUILT, content_type="text/html", headers=HEADERS)
        return web.FileResponse(index, headers=HEADERS)

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        return self._file(self._static / "assets", request.match_info["name"], FOR_EVER)

    async def _beside(self, request: web.Request) -> web.StreamResponse:
        return self._file(self._static, request.match_info["name"], "no-cache")

    @staticmethod
    def _file(folder: Path, name: str, cache: str) -> web.StreamResponse:
        path = folder / name
        if not _NAME.fullmatch(name) or not path.is_file() or path.is_symlink():
            raise web.HTTPNotFound
        return web.FileResponse(path, headers={**HEADERS, "Cache-Control": cache})
