"""Who may do what in the site's Valkey: a user a service, each with the commands and keys that it needs and no others.

The table below is the one source: `up` gives it to its own Valkey as a file, `quickcomm trust acl` prints it for
another one. See docs/adr/0018-tokens-and-least-privilege.md.
"""

import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from quickcomm.contracts.conversations import CONVERSATIONS
from quickcomm.contracts.insights import INSIGHTS
from quickcomm.contracts.summaries import SUMMARIES
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.kernel.bus.redis_names import PARTITIONS, PREFIX, Names
from quickcomm.kernel.keys.redis import KeyNames

STREAMS: Final = (TRANSCRIPTS, CONVERSATIONS, INSIGHTS, SUMMARIES)
UP: Final = "up"
"""`up` itself and the command line beside it."""


class Consumer(msgspec.Struct, frozen=True, kw_only=True):
    """A group, and which streams it reads."""

    group: str
    streams: tuple[str, ...]


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """What a service does in the store, in its own terms."""

    writes: tuple[str, ...] = ()
    """Streams."""
    consumes: tuple[Consumer, ...] = ()
    conversations: bool = False
    """It owns conversations, with their checkpoints and event logs."""
    tends: bool = False
    """It counts and trims all streams."""
    agrees: bool = False
    """Its processes agree how it is with the language model."""
    letters: bool = False
    """It shows dead letters, gives them back or drops them."""
    makes_keys: bool = False
    """It makes and revokes API keys and page sessions; everybody else only verifies them."""


_AUDIO: Final = Consumer(group="audio", streams=(INSIGHTS,))
_INTELLIGENCE: Final = (
    Consumer(group="intelligence", streams=(TRANSCRIPTS,)),
    Consumer(group="summaries", streams=(TRANSCRIPTS, INSIGHTS, CONVERSATIONS)),
)
_DASHBOARD: Final = Consumer(group="dashboard", streams=STREAMS)

SERVICES: Final[Mapping[str, Service]] = {
    "audio": Service(writes=(TRANSCRIPTS, CONVERSATIONS), consumes=(_AUDIO,), conversations=True, tends=True),
    "dashboard": Service(consumes=(_DASHBOARD,), makes_keys=True),
    "intelligence": Service(writes=(INSIGHTS, SUMMARIES), consumes=_INTELLIGENCE, tends=True, agrees=True),
    "monolith": Service(
        writes=STREAMS,
        consumes=(_AUDIO, *_INTELLIGENCE, _DASHBOARD),
        conversations=True,
        tends=True,
        letters=True,
        makes_keys=True,
    ),
}


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Commands and the keys on which they are allowed; `read` keys cannot be written, whatever the command."""

    commands: tuple[str, ...]
    keys: tuple[str, ...] = ()
    read: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join([*(f"~{key}" for key in self.keys), *(f"%R~{key}" for key in self.read), *self._allowed()])

    def _allowed(self) -> list[str]:
        return [f"+{command}" for command in self.commands]


_CONNECT: Final = Rule(commands=("ping", "select", "client|setinfo", "time", "info"))
_EVAL: Final = ("evalsha", "eval")
"""For its keys; what a script does with them is checked as if it were done without one."""
_APPEND: Final = ("xadd",)
_TEND: Final = ("exists", "xlen", "xtrim", "xinfo|groups", "xpending", "xrange")
_CONSUME: Final = (
    *("xgroup|create", "xgroup|delconsumer", "xreadgroup", "xautoclaim", "xack", "xpending"),
    *("xread", "xrange", "xrevrange", "xlen", "exists", "xinfo|groups", "xinfo|consumers"),
)
_LEASE: Final = ("hget", "hset", "hincrby", "zadd", "zrem", "zremrangebyscore", "zcard")
_CONVERSE: Final = (
    *("hget", "hgetall", "hmget", "hset", "hdel", "hincrby", "exists"),
    *("zadd", "zrem", "zscore", "zrange", "zrangebyscore"),
    *("rpush", "llen", "lrange", "ltrim", "expire", "del", "set", "get", "xadd", "xread", "xrange"),
)
_AGREE: Final = ("hget", "hset", "hmget", "pexpire")
STAND: Final = "intelligence:model"
"""As in `intelligence/adapters/shared_breaker.py`, which would bring the whole module with it."""
_LETTERS: Final = ("hget", "hkeys", "hmget", "hlen", "hdel", "hexists")
"""Among services this is nobody's: `up` does it."""
_MOVE: Final = (
    *("scan", "unlink", "del", "exists", "expire", "waitaof", "info", "set", "get", "hset", "hsetnx", "hget", "hmget"),
    *("hgetall", "sadd", "zadd", "rpush", "xadd", "xgroup|create"),
)
_EXPORT: Final = ("lrange", "xrange", "xinfo|groups", "xpending")
"""For a backup, beside those of a move."""


def rules(name: str, prefix: str = PREFIX) -> tuple[Rule, ...]:
    """What a user may do; the first is what every command needs, each of the others stands for itself."""
    if name == UP:
        letters = Rule(commands=_LETTERS, keys=(Names(prefix).dead,))
        return (_CONNECT, Rule(commands=(*_EVAL, *_MOVE, *_EXPORT), keys=(f"{prefix}:*",)), letters)
    service, names, keys = SERVICES[name], Names(prefix), KeyNames(prefix)
    found = [Rule(commands=("hmget",), read=(f"{prefix}:home",))]
    found += [Rule(commands=_APPEND, keys=tuple(_parts(names, stream) for stream in service.writes))]
    for consumer in service.consumes:
        found += [
            Rule(commands=_CONSUME, keys=tuple(_parts(names, stream) for stream in consumer.streams)),
            Rule(commands=_LEASE, keys=tuple(_leases(names, consumer))),
        ]
    if service.consumes:
        found += [
            Rule(commands=("sadd", "smembers"), keys=(names.streams,)),
            Rule(commands=("hset", "hdel", "incr"), keys=(names.dead, names.last_dead)),
            Rule(commands=("hkeys", "hmget", "hlen"), read=(names.dead,)),
        ]
    if service.tends:
        found.append(Rule(commands=_TEND, keys=tuple(_parts(names, stream) for stream in STREAMS)))
    if service.letters:
        found.append(Rule(commands=_LETTERS, keys=(names.dead,)))
    if service.agrees:
        found.append(Rule(commands=_AGREE, keys=(f"{prefix}:{STAND}",)))
    if service.conversations:
        found.append(Rule(commands=_CONVERSE, keys=(f"{prefix}:audio:*",)))
        found.append(Rule(commands=("xdel",), keys=(_parts(names, CONVERSATIONS),)))
    if service.makes_keys:
        found += [
            Rule(commands=("hget", "hset", "hgetall"), keys=(keys.by_digest, keys.by_id)),
            Rule(commands=("get", "set", "del"), keys=(f"{keys.sessions}*",)),
        ]
    else:
        found += [Rule(commands=("hget", "get"), read=(keys.by_digest, f"{keys.sessions}*"))]
    touched = sorted({key for rule in found for key in rule.keys})
    return (_CONNECT, Rule(commands=_EVAL, keys=tuple(touched)), *(rule for rule in found if rule.keys or rule.read))


def line(name: str, password: str, prefix: str = PREFIX) -> str:
    """As it stands in an ACL file. `password`: `#` and its SHA-256, or `>` and itself."""
    first, *others = rules(name, prefix)
    return " ".join([f"user {name} reset on {password} resetchannels -@all {first}", *(f"({rule})" for rule in others)])


def acl(passwords: Mapping[str, str], prefix: str = PREFIX) -> str:
    """A whole ACL file: nobody gets in without a name."""
    return "\n".join(["user default reset off", *(line(name, passwords[name], prefix) for name in users()), ""])


def users() -> list[str]:
    return sorted([*SERVICES, UP])


class Passwords:
    """A file a user, in a folder for this user of the machine alone. Made once, and kept while it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, user: str) -> Path:
        return self.folder / user

    def ensure(self) -> dict[str, str]:
        """`#` and the SHA-256 of each user's password."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return {user: f"#{hashlib.sha256(self._one(user).encode()).hexdigest()}" for user in users()}

    def _one(self, user: str) -> str:
        path = self.file(user)
        if path.exists() and (found := path.read_text().strip()):
            return found
        made = secrets.token_urlsafe(32)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(made)
        return made


def _parts(names: Names, stream: str) -> str:
    """All partitions of a stream, and nothing else of it."""
    return names.part(stream, 0)[:-1] + f"[0-{PARTITIONS - 1}]"


def _leases(names: Names, consumer: Consumer) -> list[str]:
    found = []
    for stream in consumer.streams:
        found += [names.leases(stream, consumer.group), names.members(stream, consumer.group)]
    return found
