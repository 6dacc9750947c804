"""Envoy's configuration, rendered from settings, addresses and files by `envoy.yaml.j2` beside this file."""

import json
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import jinja2
import msgspec
import yaml

from quickcomm.contracts.audio_socket import RELAYED
from quickcomm.contracts.identity import BUCKETS
from quickcomm.contracts.routes import HEADER
from quickcomm.edge.settings import EdgeSettings
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.keys.auth import COOKIE
from quickcomm.kernel.runtime.declaration import Route

TEMPLATE: Final = Path(__file__).with_name("envoy.yaml.j2")
CERTIFICATE: Final = "certificate"
LISTENERS: Final = "listeners"
INNER: Final = "inner-routes"
CLUSTERS: Final = "clusters"
ROUTES: Final = "routes"
_SEGMENT: Final = re.compile(r"\{(\w+)\}")
KEEPALIVE: Final = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
RECEIVE_BYTES: Final = 256 * 1024
"""Kept of a client by the system: a ping waits behind it. As where there is no edge."""
TYPE: Final = "type.googleapis.com/envoy."
Resource = dict[str, Any]
"""A message of Envoy's v3 API as JSON: field names are Envoy's own."""


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files: the certificate with its chain, and its key."""

    certificate: Path
    key: Path


class Public(msgspec.Struct, frozen=True, kw_only=True):
    """The address at which the edge listens."""

    host: str
    port: int
    tls: Tls | None = None

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host
        return f"{'https' if self.tls else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """The address of an instance: a Unix socket, or host and port."""

    socket: str | None = None
    host: str = "127.0.0.1"
    port: int = 0

    @property
    def address(self) -> Resource:
        if self.socket is not None:
            return {"pipe": {"path": self.socket}}
        return {"socket_address": {"address": self.host, "port_value": self.port}}


class Apart(msgspec.Struct, frozen=True, kw_only=True):
    """Conversations and channels that go to one cluster of a split, whatever their bucket.

    `there`: to the cluster of the split; else to that of the route. A conversation counts before its channel.
    """

    there: bool
    conversations: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """Routes of which a share goes to another cluster: what hashes to a bucket below `weight`, of `BUCKETS`.

    `apart`: of the sticky WebSockets among them.
    """

    routes: tuple[Route, ...]
    cluster: str
    weight: int
    apart: tuple[Apart, ...] = ()


class Front(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster that gets the WebSockets of these routes first, and passes them on at `socket`.

    While it has no instance that is well, they go where they would go without it.
    """

    cluster: str
    routes: tuple[Route, ...]
    socket: Path


class Config(msgspec.Struct, frozen=True):
    """`bootstrap` is what Envoy starts with; the others are resources in watched files."""

    bootstrap: Resource
    listeners: list[Resource]
    clusters: list[Resource]
    routes: Resource
    inner: Resource | None = None
    """Routes of what a front passes on."""


def render(
    public: Public,
    settings: EdgeSettings,
    served: Mapping[str, Sequence[Route]],
    sources: Mapping[str, Resource],
    admin_socket: Path,
    splits: Sequence[Split] = (),
    version: int = 0,
    front: Front | None = None,
) -> Config:
    """Return the whole configuration.

    `served`: the routes of each cluster. `sources`: where Envoy finds each watched file, by its name. `splits`: of
    routes that are served; a cluster that gets nothing yet is there, so that its instances can be checked. `version`:
    of the routes that the splits are made by, which processes are told with each request. `front`: of routes that are
    served.
    Raises `ConfigurationError` for settings that no configuration can be made of.
    """
    everything = {**{split.cluster: split.routes for split in splits}, **served}
    if front is not None:
        everything[front.cluster] = ()
    rendered = _template().render(
        public=public,
        settings=settings,
        clusters={name: any(route.sticky for route in routes) for name, routes in everything.items()},
        routes=_in_order(served, splits, front),
        front=front,
        behind_front=_behind(served, splits, front),
        relayed=RELAYED,
        buckets=BUCKETS,
        version=version,
        version_header=HEADER,
        cookie=COOKIE,
        sources=sources,
        admin_socket=str(admin_socket),
        keepalive=_keepalive(),
        collector=_collector(settings),
    )
    return msgspec.convert(yaml.load(rendered, yaml.CSafeLoader), Config)


def assignment(name: str, backends: Sequence[Backend]) -> Resource:
    """Return the endpoints of a cluster, the same for the same instances in any order."""
    in_order = sorted(backends, key=lambda each: (each.socket or "", each.host, each.port))
    endpoints = [{"endpoint": {"address": each.address}} for each in in_order]
    made: Resource = {"@type": f"{TYPE}config.endpoint.v3.ClusterLoadAssignment", "cluster_name": name}
    return made | ({"endpoints": [{"lb_endpoints": endpoints}]} if endpoints else {})


def secret(tls: Tls) -> Resource:
    """Return a certificate for a watched file of its own, so that it can be replaced while connections are open."""
    pair = {"certificate_chain": {"filename": str(tls.certificate)}, "private_key": {"filename": str(tls.key)}}
    kind = f"{TYPE}extensions.transport_sockets.tls.v3.Secret"
    return {"@type": kind, "name": CERTIFICATE, "tls_certificate": pair}


def seconds(value: float) -> str:
    """Return a duration in the form of Envoy's JSON."""
    return f"{value:.3f}".rstrip("0").rstrip(".") + "s"


def quoted(value: object) -> str:
    """Return a value as JSON that is YAML, too: characters beyond ASCII in YAML's own form, not in surrogate pairs."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(each if " " <= each <= "~" else f"\\U{ord(each):08x}" for each in text)


class _Passed(msgspec.Struct, frozen=True, kw_only=True):
    """A route as the template writes it."""

    name: str
    cluster: str
    match: Resource
    websocket: bool = False
    passes_full: bool = False
    hashed: Resource | None = None
    """How a path becomes what is hashed."""
    answers_within_s: float | None = None
    by_client: bool = False
    split: Split | None = None
    fronted: bool = False
    """Whether it goes to the front first."""


def _behind(served: Mapping[str, Sequence[Route]], splits: Sequence[Split], front: Front | None) -> list[str]:
    """Return the clusters to which requests go that come to a front first, those without a share yet, too."""
    if front is None:
        return []
    everything = [*served.items(), *((split.cluster, split.routes) for split in splits)]
    return sorted({name for name, routes in everything if any(route in front.routes for route in routes)})


def _in_order(served: Mapping[str, Sequence[Route]], splits: Sequence[Split], front: Front | None) -> list[_Passed]:
    """Return the routes as the first that matches must come: WebSockets, single paths, then the longest prefixes."""
    found = [(route, cluster) for cluster, routes in served.items() for route in routes]
    found.sort(key=lambda each: (each[0].path.endswith("/"), -len(each[0].path)))
    fronted = () if front is None else front.routes
    in_order = []
    for route, cluster in found:
        if route.websocket:
            in_order += _shared(route, _socket(route, cluster, fronted), splits)
    for route, cluster in found:
        limit_s = route.answers_within_s
        plain = _Passed(name=route.name, cluster=cluster, match=_match(route.path), answers_within_s=limit_s)
        in_order += _shared(route, plain, splits)
    return in_order


def _shared(route: Route, passed: _Passed, splits: Sequence[Split]) -> list[_Passed]:
    """Return a route with the share that goes elsewhere; before it, what goes to one side whatever its bucket."""
    passed = msgspec.structs.replace(passed, by_client=route.by_client)
    split = next((each for each in splits if route in each.routes), None)
    if split is None:
        return [passed]
    shared = msgspec.structs.replace(passed, split=split) if split.weight > 0 else passed
    if not (passed.websocket and route.sticky):
        return [shared]
    return [*_apart(route, passed, shared, split), shared]


def _apart(route: Route, passed: _Passed, shared: _Passed, split: Split) -> Iterator[_Passed]:
    """Yield the routes of what goes to one side: conversations, then channels."""

    def to(each: Apart, more: Resource) -> _Passed:
        cluster = split.cluster if each.there else passed.cluster
        return msgspec.structs.replace(passed, cluster=cluster, match=passed.match | more)

    for each in split.apart:
        if each.conversations:
            before, _, behind = _SEGMENT.split(route.path, maxsplit=1)
            one_of = "|".join(map(re.escape, each.conversations))
            yield to(each, {"safe_regex": {"regex": f"{before}(?:{one_of}){behind}"}})
    if not route.channel_in:
        return
    for each in split.apart:
        if each.channels:
            yield to(each, _query(route.channel_in, "|".join(map(_encoded, each.channels))))
    for each in split.apart:
        if route.channel_else in each.channels:  # clients that name no channel are on this one, and only they
            yield msgspec.structs.replace(shared, match=shared.match | _query(route.channel_in, ".+"))
            yield to(each, {})


def _query(parameter: str, pattern: str) -> Resource:
    return {"query_parameters": [{"name": parameter, "string_match": {"safe_regex": {"regex": pattern}}}]}


def _encoded(text: str) -> str:
    """Return a pattern of all ways to write a text in a query: Envoy compares what was sent."""
    return "".join(map(_encoded_byte, text.encode()))


def _encoded_byte(byte: int) -> str:
    ways = [f"%(?i:{byte:02x})"]
    if byte == ord(" "):
        ways.append(r"\+")
    elif byte < 128 and chr(byte) not in "%&+#":  # noqa: PLR2004 - ASCII; those have a meaning of their own
        ways.append(re.escape(chr(byte)))
    return f"(?:{'|'.join(ways)})"


def _socket(route: Route, cluster: str, fronted: Sequence[Route]) -> _Passed:
    upgrade = {"name": "upgrade", "string_match": {"exact": "websocket", "ignore_case": True}}
    return _Passed(
        name=f"{route.name}-websocket",
        cluster=cluster,
        match=_match(route.path) | {"headers": [upgrade]},
        websocket=True,
        passes_full=route.passes_full,
        hashed=_rewrite(route) if route.sticky else None,
        fronted=route in fronted,
    )


def _match(path: str) -> Resource:
    if path.endswith("/"):
        return {"prefix": path}
    return {"safe_regex": {"regex": _SEGMENT.sub("[^/]+", path)}} if _SEGMENT.search(path) else {"path": path}


def _rewrite(route: Route) -> Resource:
    """Return how Envoy makes what is hashed of a path with its query."""
    names = _SEGMENT.findall(route.path)
    replaced = _SEGMENT.sub(lambda found: rf"\{names.index(found[1]) + 1}", route.sticky)
    return {"pattern": {"regex": f"^{_SEGMENT.sub('([^/?]+)', route.path)}.*$"}, "substitution": replaced}


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701 - YAML, no page
    environment.filters["seconds"] = seconds
    environment.filters["tojson"] = quoted
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


def _keepalive() -> list[Resource]:
    """Return the options of the public socket: who has vanished is noticed, and little waits for the edge."""
    options = [{"level": socket.SOL_SOCKET, "name": socket.SO_KEEPALIVE, "int_value": 1}]
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):  # not on every system
            options.append({"level": socket.IPPROTO_TCP, "name": getattr(socket, name), "int_value": value})
    options.append({"level": socket.SOL_SOCKET, "name": socket.SO_RCVBUF, "int_value": RECEIVE_BYTES})
    return options


def _collector(settings: EdgeSettings) -> Resource | None:
    if settings.otlp_url is None:
        return None
    parts = urlsplit(settings.otlp_url)
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigurationError("edge.otlp_url must be an http:// address, such as http://127.0.0.1:4318/v1/traces.")
    return {"address": parts.hostname, "port_value": parts.port or 80}
