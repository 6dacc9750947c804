"""Which side serves what while a module moves: between the monolith and a service of its own, or to another release.

A weight is a share of the buckets of ids (`identity.bucket`), so that an id stays where it is while the weight rises,
and goes back the same way. The controller alone makes routes; everybody else follows them.
"""

from typing import Annotated, Final, Literal

import msgspec
import xxhash

from quickcomm.contracts.identity import BUCKETS, bucket

MONOLITH: Final = "monolith"
SERVICE: Final = "service"
Side = str
"""`monolith`, `service`, or `service@RELEASE`: the processes of a module that run another release of it."""
AT: Final = "@"
RELEASE: Final = r"^[0-9A-Za-z._]+-[0-9a-f]{6}$"
"""The name of a release: its version, and the beginning of the digest of its files."""
HEADER: Final = "x-quickcomm-routes"
"""Of requests that the edge sends on: the version of the routes by which it chose the side."""
Mode = Literal["off", "shadow", "canary", "full", "retired"]
"""off: the service does not run. shadow: it is kept complete, without requests. canary: it serves a share.
full: it serves all. retired: the monolith has stopped the module."""

UNAWAITED: Final[dict[str, tuple[str, ...]]] = {"intelligence": ("intelligence", "summaries")}
"""Consumer groups of modules whose service is not waited for before it serves."""


class ModuleRoute(msgspec.Struct, frozen=True, kw_only=True):
    """Of one module. `weight`: the service has the ids whose bucket is below it; `decides`: the side with the lease.

    `base` and `candidate`: the two sides that there are; where these are told apart, the candidate is "the service".
    `overrides`: ids with a side of their own, whatever their bucket; `channels`, `sites`: of conversations on a channel
    or of a site. The narrower one counts.
    """

    mode: Mode = "off"
    weight: Annotated[int, msgspec.Meta(ge=0, le=BUCKETS)] = 0
    decides: Side = MONOLITH
    base: Side = MONOLITH
    candidate: Side = SERVICE
    overrides: dict[str, Side] = {}
    channels: dict[str, Side] = {}
    sites: dict[str, Side] = {}

    def side(self, at: int, name: str = "", *, channel: str = "", site: str = "") -> Side:
        """Return the side of a bucket, or of the id `name` that is in it, on a channel of a site."""
        by_bucket = self.candidate if at < self.weight else self.base
        by_site = self.sites.get(site, by_bucket)
        return self.overrides.get(name, self.channels.get(channel, by_site))

    def leaves(self, side: Side) -> bool:
        """Return True if nothing comes to this side any more."""
        if side not in {self.base, self.candidate}:
            return True
        others = 0 if side == self.candidate else BUCKETS
        kept = {*self.overrides.values(), *self.channels.values(), *self.sites.values()}
        return self.weight == others and self.decides != side and side not in kept

    def runs(self, side: Side) -> bool:
        """Return True if the module is to run on this side."""
        if side == self.base:
            return self.mode != "retired"
        return side == self.candidate and self.mode != "off"

    @property
    def moves(self) -> bool:
        """Return True while the module is not in the monolith alone."""
        return self.mode != "off" or self.base != MONOLITH

    def named(self, role: Literal["monolith", "service"]) -> Side:
        """Return the side in a role: the base is in that of the monolith, the candidate in that of the service."""
        return self.candidate if role == SERVICE else self.base

    def other(self, side: Side) -> Side:
        """Return the side beside this one."""
        return self.base if side == self.candidate else self.candidate


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
            group_of(name, self.of(module).candidate)
            for module, names in UNAWAITED.items()
            if self.of(module).mode in {"off", "shadow"} and self.of(module).leaves(self.of(module).candidate)
            for name in names
        )


def group_of(name: str, side: Side) -> str:
    """Return the name of a consumer group on a side: both read everything, each at its own pace."""
    return name if side == MONOLITH else f"{name}{AT}{side}"


def side_of(release: str) -> Side:
    """Return the side of a release of a service: `service@0.2.0-3f2a91` of `0.2.0-3f2a91`."""
    return f"{SERVICE}{AT}{release}"


def release_of(side: Side) -> str:
    """Return the release that a side runs; empty for the one of the site."""
    return side.partition(AT)[2]


def place_of(name: str, side: Side) -> str:
    """Return what a module has as its own on a side, such as a directory: `dashboard`, or `dashboard@3f2a91`.

    Of a release, it ends with the end of its name, since the paths of sockets are short.
    """
    release = release_of(side)
    return f"{name}{AT}{release.rpartition('-')[2]}" if release else name


def client_bucket(credential: str) -> int:
    """Return the bucket 0 … 9,999 of a page session or a key: xxh64 (seed 0) of what is sent, as Envoy hashes it."""
    return xxhash.xxh64_intdigest(credential.encode("utf-8", "surrogateescape")) % BUCKETS
