"""What an installation of QuickComm is: its version, the digest of its files, and what it says to others.

Each release tells that of itself (`quickcomm release --json`), so that a running site can ask another one before
anything of it serves.
"""

import hashlib
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

import quickcomm
from quickcomm import __version__, contracts
from quickcomm.contracts.conversations import CONVERSATIONS, ConversationChanged
from quickcomm.contracts.decisions import DECISIONS, Decision
from quickcomm.contracts.insights import INSIGHTS, InsightsFound
from quickcomm.contracts.messaging import Request, name_of, reply_type
from quickcomm.contracts.summaries import SUMMARIES, ConversationSummarized
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed

STREAMS: Final[Mapping[str, type[msgspec.Struct]]] = {
    TRANSCRIPTS: UtteranceTranscribed,
    CONVERSATIONS: ConversationChanged,
    INSIGHTS: InsightsFound,
    SUMMARIES: ConversationSummarized,
    DECISIONS: Decision,
}
"""By stream: what its messages are."""
LEFT_OUT: Final = frozenset({"__pycache__"})
Schema = dict[str, Any]


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """The streams that a module writes to, and those that it reads."""

    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request between services: who answers it, who may ask, and the schemas of both."""

    module: str
    callers: tuple[str, ...]
    request: Schema
    reply: Schema


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a release tells of itself. `components`: the schemas that others refer to, by name."""

    version: str
    digest: str
    package: str
    """The directory of its files."""
    modules: dict[str, Flow]
    streams: dict[str, Schema]
    requests: dict[str, Asked]
    components: dict[str, Schema]

    @property
    def name(self) -> str:
        """Return the name of the release, such as `0.2.0-3f2a91`."""
        return f"{self.version.replace('-', '.').replace('+', '.')}-{self.digest[:6]}"


def own() -> Told:
    """Return what this installation is."""
    from quickcomm.apps import MODULES  # noqa: PLC0415 - loads all declarations

    for each in pkgutil.iter_modules(contracts.__path__):
        importlib.import_module(f"{contracts.__name__}.{each.name}")
    asked = sorted((kind for kind in _kinds(Request) if kind.callers), key=name_of)
    types = [*STREAMS.values(), *asked, *map(reply_type, asked)]
    schemas, components = msgspec.json.schema_components(types, ref_template="{name}")
    streams, requests, replies = (
        schemas[: len(STREAMS)],
        schemas[len(STREAMS) : len(STREAMS) + len(asked)],
        schemas[len(STREAMS) + len(asked) :],
    )
    package = Path(quickcomm.__file__).parent
    told = Told(
        version=__version__,
        digest=digest(package),
        package=str(package),
        modules={
            module.name: Flow(
                writes=(*module.publishes, *module.appends),
                reads=tuple(dict.fromkeys(stream for group in module.consumes for stream in group.streams)),
            )
            for module in MODULES
        },
        streams=dict(zip(STREAMS, streams, strict=True)),
        requests={
            name_of(kind): Asked(module=kind.module, callers=kind.callers, request=request, reply=reply)
            for kind, request, reply in zip(asked, requests, replies, strict=True)
        },
        components=components,
    )
    return msgspec.json.decode(msgspec.json.encode(told), type=Told)  # schemas as others read them


def digest(package: Path) -> str:
    """Return the SHA-256 of the names and contents of all files of a package, but for compiled ones."""
    found = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and not LEFT_OUT & set(path.parts):
            found.update(f"{path.relative_to(package)}\0".encode())
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def _kinds(of: type[Request[Any]]) -> Iterator[type[Request[Any]]]:
    """Yield all requests of the contracts that have a name."""
    for kind in of.__subclasses__():
        if isinstance(kind.__struct_config__.tag, str) and kind.__module__.startswith(contracts.__name__):
            yield kind
        yield from _kinds(kind)
