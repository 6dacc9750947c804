"""The port of ingests: protocols by which sound gets into conversations. Each is one file, listed in the declaration.

An ingest serves requests at its path. It authenticates the caller, names the conversation, its channel and the format
of the sound, and opens it through the `Reception`. To the conversation it gives samples (`feed`, `take`), gaps (`skip`,
or None for a speaker of `take`), the end of a transmission (`flush`) and the end of all (`end`). It gets typed events
and a reason for the end (`Outlet.events`), and puts both into the terms of its protocol.
"""

from typing import Protocol

from aiohttp import web

from quickcomm.audio.ingest.caller import Authenticate
from quickcomm.audio.ingest.reception import Reception


class Ingest(Protocol):
    path: str

    def __init__(self, reception: Reception, authenticate: Authenticate) -> None: ...

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve a request until its connection ends."""
        ...
