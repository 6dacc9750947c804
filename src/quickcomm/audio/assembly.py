"""Builds audio as a part of a process."""

from collections.abc import Sequence
from functools import partial

import msgspec
from aiohttp import web

from quickcomm.audio.engine import load_engine
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.audio.module import Audio, Places
from quickcomm.audio.ports import SpeechToText
from quickcomm.kernel.emergencies import EmergencyRules
from quickcomm.kernel.runtime.app import Context
from quickcomm.kernel.runtime.data_directory import recordings_of
from quickcomm.kernel.runtime.declaration import App
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.runtime.settings import Settings
from quickcomm.kernel.site_pack import SitePack


def load(app: App, settings: Settings, pack: SitePack) -> SpeechToText:
    """Load the speech-to-text model; processes of audio alone share the machine."""
    return load_engine(settings, pack, settings.of(AudioSettings).processes if app.alone else 1)


def build(context: Context, engine: SpeechToText) -> Part:
    settings = context.settings
    audio = Audio(
        settings=settings.of(AudioSettings),
        database=context.store,
        messaging=context.messaging,
        clock=context.clock,
        engine=engine,
        keys=context.keys,
        emergencies=EmergencyRules(context.pack.emergency),
        places=Places(
            recordings=recordings_of(settings.storage, context.site),
            recordings_endpoint=settings.storage.recordings_endpoint,
            redis_url=settings.redis_url,
            owner=settings.instance.name,
            routes=context.routes if context.moving else None,
            side=context.side,
        ),
    )
    drain = partial(audio.drain, lambda: bool(context.peers()))
    return msgspec.structs.replace(audio.part(), drain=drain)


def doors() -> Sequence[web.AbstractRouteDef]:
    """Return the routes of audio that is not built."""
    return Audio.doors()
