"""Builds the session relay as a part of a process."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import aiohttp
from aiohttp import web

from quickcomm.audio.model.settings import AudioSettings
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.http import traced_client
from quickcomm.kernel.keys import Authenticator
from quickcomm.kernel.runtime.app import Context
from quickcomm.kernel.runtime.declaration import App
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.runtime.settings import Settings
from quickcomm.kernel.site_pack import SitePack
from quickcomm.relay.calls import CallRelay
from quickcomm.relay.held import Held
from quickcomm.relay.native import NativeRelay
from quickcomm.relay.settings import RelaySettings
from quickcomm.relay.sockets import Sockets
from quickcomm.relay.upstream import Resumed, Way

MB = 1 << 20


def load(_app: App, _settings: Settings, _pack: SitePack) -> None:
    """Load nothing: the relay has no models."""


def build(context: Context, _loaded: None) -> Part:
    """Raises `ConfigurationError` outside of a site that `up` runs."""
    edge = context.settings.instance.edge
    if edge is None:
        raise ConfigurationError("The session relay needs the edge of a site. Use: quickcomm up")
    return relay(
        edge, context.settings.of(RelaySettings), context.settings.of(AudioSettings), context.keys, context.clock
    )


def relay(edge: str, settings: RelaySettings, audio: AudioSettings, keys: Authenticator, clock: Clock) -> Part:
    """Return the part that relays to the sides behind the Unix socket `edge`. Within a running loop."""
    held = Held(settings.held_mb * MB, settings.held_mb_each * MB)
    session = aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(edge, limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),  # a cookie is its caller's
        trace_configs=traced_client(),
    )
    resumed = Resumed()
    sockets = Sockets(Way(session=session, held=held, settings=settings, clock=clock, resumed=resumed))
    natives, calls = NativeRelay(sockets, keys), CallRelay(sockets, audio.twilio)

    async def status() -> Mapping[str, Any]:
        return {"sockets": sockets.count, "held_bytes": held.total}

    return Part(
        name="relay",
        routes=[web.get(natives.path, natives.handle), web.get(calls.path, calls.handle)],
        work={
            "relay": partial(resumed.tell_forever, clock),
            "relay-pings": partial(sockets.ping_forever, audio.ping_every_s),
        },
        drain=sockets.drain,
        close=sockets.aclose,
        status=status,
    )
