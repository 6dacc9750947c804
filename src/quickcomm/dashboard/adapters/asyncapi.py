"""The AsyncAPI 3.0 document: the WebSockets with the types that are really sent over them."""

import re
from collections.abc import Sequence
from typing import Any, Final, get_args

import msgspec

from quickcomm import __version__
from quickcomm.contracts.audio_socket import CLIENT_CONTROLS, PATH, SERVER_EVENTS, TWILIO_PATH
from quickcomm.dashboard.adapters.hub import LiveEvent
from quickcomm.dashboard.adapters.live import Painted, Watch

_SCHEMAS: Final = "#/components/schemas/{name}"
LIVE_PATH: Final = "/v1/live"


class _Channel(msgspec.Struct, frozen=True, kw_only=True):
    """`sends` and `receives`: the types of the server's messages, and of the client's text messages."""

    path: str
    description: str
    sends: Sequence[Any] = ()
    receives: Sequence[Any] = ()


_CHANNELS: Final = {
    "audio": _Channel(
        path=PATH,
        description="Sound in. Binary messages of the client are raw audio. Needs the role `ingest` or `admin`.",
        sends=SERVER_EVENTS,
        receives=CLIENT_CONTROLS,
    ),
    "twilio": _Channel(
        path=TWILIO_PATH,
        description="Telephone calls from Twilio Media Streams, in Twilio's messages, with Twilio's signature.",
    ),
    "live": _Channel(
        path=LIVE_PATH,
        description="Cards, captions and health as they happen. Needs the role `read` or `admin`.",
        sends=get_args(LiveEvent),
        receives=(Watch, Painted),
    ),
}


def document() -> dict[str, Any]:
    """Return the document. Actions are those of the server."""
    kinds = [kind for channel in _CHANNELS.values() for kind in (*channel.sends, *channel.receives)]
    refs, schemas = msgspec.json.schema_components(kinds, ref_template=_SCHEMAS)
    names = {id(kind): ref["$ref"].rpartition("/")[2] for kind, ref in zip(kinds, refs, strict=True)}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "QuickComm", "version": __version__, "license": {"name": "Apache-2.0"}},
        "servers": {
            "site": {"host": "{host}", "protocol": "wss", "variables": {"host": {"default": "127.0.0.1:8080"}}}
        },
        "channels": {name: _channel(channel, names) for name, channel in _CHANNELS.items()},
        "operations": {
            f"{action}{name.capitalize()}": {
                "action": action,
                "channel": {"$ref": f"#/channels/{name}"},
                "messages": [{"$ref": f"#/channels/{name}/messages/{names[id(kind)]}"} for kind in sent],
            }
            for name, channel in _CHANNELS.items()
            for action, sent in (("send", channel.sends), ("receive", channel.receives))
            if sent
        },
        "components": {
            "messages": {
                name: {"contentType": "application/json", "payload": {"$ref": _SCHEMAS.format(name=name)}}
                for name in dict.fromkeys(names.values())
            },
            "schemas": schemas,
        },
    }


def _channel(channel: _Channel, names: dict[int, str]) -> dict[str, Any]:
    parameters = {name: {"description": "Chosen by the client."} for name in re.findall(r"{(\w+)}", channel.path)}
    own = [names[id(kind)] for kind in (*channel.sends, *channel.receives)]
    return {
        "address": channel.path,
        "description": channel.description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in own},
        **({"parameters": parameters} if parameters else {}),
    }
