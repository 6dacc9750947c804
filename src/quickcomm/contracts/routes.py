"""Which side serves what while a module moves between the monolith and a service of its own.

A weight is a share of the buckets of ids (`identity.bucket`), so that an id stays where it is while the weight rises,
and goes back the same way. The controller alone makes routes; everybody else follows them.
"""

from typing import Annotated, Final, Literal

import msgspec
import xxhash

from quickcomm.contracts.identity import BUCKETS, bucket

MONOLITH: Final = "monolith"
SERVICE: Final = "service"
Side = Literal["monolith", "service"]
HEADER: Final = "x-quickcomm-routes"
"""Of requests that the edge sends on: the version of the routes by which it chose the side."""
Mode = Literal["off", "shadow", "canary", "full", "retired"]
"""off: the service does not run. shadow: it is kept complete, without requests. canary: it serves a share.
full: it serves all. retired: the monolith has stopped the module."""

UNAWAITED: Final[dict[str, tuple[str, ...]]] = {"intelligence": ("intelligence", "summaries")}
"""Consumer groups of modules whose service is not waited for before it serves."""


class ModuleRoute(msgspec.Struct, frozen=True, kw_only=True):
    """Of one module. `weight`: the service has the ids whose bucket is below it; `decides`: the side with the lease.

    `overrides`: ids with a side of their own, whatever their bucket; `channels`, `sites`: of conversations on a channel
    or of a site. The narrower one counts.
    """

    mode: Mode = "off"
    weight: Annotated[int, msgspec.Meta(ge=0, le=BUCKETS)] = 0
    decides: Side = MONOLITH
    overrides: dict[str, Side] = {}
    channels: dict[str, Side] = {}
    sites: dict[str, Side] = {}

    def side(self, at: int, name: str = "", *, channel: str = "", site: str = "") -> Side:
        """Return the side of a bucket, or of the id `name` that is in it, on a channel of a site."""
        by_bucket: Side = SERVICE if at < self.weight else MONOLITH
        by_site = self.sites.get(site, by_bucket)
        return self.overrides.get(name, self.channels.get(channel, by_site))

    def leaves(self, side: Side) -> bool:
        """Return True if nothing comes to this side any more."""
        others = 0 if side == SERVICE else BUCKETS
        kept = {*self.overrides.values(), *self.channels.values(), *self.sites.values()}
        return self.weight == others and self.decides != side and side not in kept


class Routes(msgspec.Struct, frozen=True, kw_only=True):
    """Of a site. `version` rises with each change; 0: nobody has made any."""

    version: int = 0
    modules: dict[str, ModuleRoute] = {}

    def of(self, module: str) -> ModuleRoute:
        """Return the route of a module; of one that was never moved, to the monolith."""
        return self.modules.get(module, ModuleRoute())

    def side(self, module: str, conversation_id: str, *, channel: str = "", site: str = "") -> Side:
        """Return the side that a conversation belongs to. Without its channel and site, none of theirs is looked at."""
        at = bucket(module, conversation_id)
        return self.of(module).side(at, conversation_id, channel=channel, site=site)

    @property
    def unawaited(self) -> tuple[str, ...]:
        """Return the consumer groups for which no stream keeps messages for long."""
        return tuple(
            group_of(name, SERVICE)
            for module, names in UNAWAITED.items()
            if self.of(module).mode in {"off", "shadow"} and self.of(module).leaves(SERVICE)
            for name in names
        )


def group_of(name: str, side: Side) -> str:
    """Return the name of a consumer group on a side: both read everything, each at its own pace."""
    return name if side == MONOLITH else f"{name}@{side}"


def client_bucket(credential: str) -> int:
    """Return the bucket 0 … 9,999 of a page session or a key: xxh64 (seed 0) of what is sent, as Envoy hashes it."""
    return xxhash.xxh64_intdigest(credential.encode("utf-8", "surrogateescape")) % BUCKETS
