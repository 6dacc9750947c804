"""Who may do what in the site's Valkey: a user a service, each with the commands and keys that it needs and no others.

Derived from what the modules declare. `up` gives it to its own Valkey as a file, `quickcomm trust acl` prints it for
another one. See docs/adr/0018-tokens-and-least-privilege.md.
"""

import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from quickcomm.apps import APPS, STREAMS
from quickcomm.contracts.routes import AT, SERVICE, group_of
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.kernel.keys.redis import KeyNames
from quickcomm.kernel.messaging.bus.redis_names import PARTITIONS, PREFIX, Names
from quickcomm.kernel.routing.redis import RouteNames
from quickcomm.kernel.runtime.declaration import App, Group

UP: Final = "up"
"""`up` itself and the command line beside it."""


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
    *("xgroup|create", "xgroup|destroy", "xgroup|delconsumer", "xreadgroup", "xautoclaim", "xack", "xpending"),
    *("xread", "xrange", "xrevrange", "xlen", "exists", "xinfo|groups", "xinfo|consumers"),
)
_LEASE: Final = ("hget", "hset", "hincrby", "zadd", "zrem", "zremrangebyscore", "zcard", "del")
_LETTERS: Final = ("hget", "hkeys", "hmget", "hlen", "hdel", "hexists")
"""For operators: in the monolith itself, where modules are services in `up`."""
_MOVE: Final = (
    *("scan", "unlink", "del", "exists", "expire", "waitaof", "info", "set", "get", "hset", "hsetnx", "hget", "hmget"),
    *("hgetall", "sadd", "zadd", "rpush", "xadd", "xgroup|create"),
)
_REWRITE: Final = Rule(commands=("bgrewriteaof",))
"""After an erasure: what was deleted stays in the server's file until it is written anew."""
_EXPORT: Final = ("lrange", "xrange", "xinfo|groups", "xpending")
"""For a backup, beside those of a move."""


def rules(name: str, prefix: str = PREFIX) -> tuple[Rule, ...]:
    """What a user may do; the first is what every command needs, each of the others stands for itself."""
    if name == UP:
        letters = Rule(commands=_LETTERS, keys=(Names(prefix).dead,))
        checked = (
            Rule(commands=("smembers",), read=(Names(prefix).streams,)),
            Rule(commands=("xlen",), keys=(_parts(Names(prefix), TRANSCRIPTS),)),
        )
        erasing = Rule(commands=("xdel",), keys=(f"{prefix}:*",))
        everything = Rule(commands=(*_EVAL, *_MOVE, *_EXPORT), keys=(f"{prefix}:*",))
        return (_CONNECT, everything, letters, *checked, erasing, _REWRITE)
    app = APPS[name]
    found = [Rule(commands=("hmget",), read=(f"{prefix}:home",)), *_of_streams(app, Names(prefix))]
    for module in app.modules:
        found += [
            Rule(commands=own.commands, keys=tuple(f"{prefix}:{key}" for key in own.keys))
            for own in module.store
            if not (own.between_replicas and len(app.modules) > 1)
        ]
    found += _of_keys(app, KeyNames(prefix))
    routes = RouteNames(prefix)
    found.append(Rule(commands=("hget", "hset"), keys=(routes.followers,)))
    found.append(Rule(commands=("hmget",), read=(routes.routes,)))
    rewrite = (_REWRITE,) if app.operates else ()
    touched = sorted({key for rule in found for key in rule.keys})
    return (
        _CONNECT,
        Rule(commands=_EVAL, keys=tuple(touched)),
        *(rule for rule in found if rule.keys or rule.read),
        *rewrite,
    )


def _of_streams(app: App, names: Names) -> list[Rule]:
    modules = app.modules
    streams = [each for module in modules for each in (*module.publishes, *module.appends)]
    found = [Rule(commands=_APPEND, keys=tuple(_parts(names, each) for each in streams))]
    for group in (group for module in modules for group in module.consumes):
        found += [
            Rule(commands=_CONSUME, keys=tuple(_parts(names, stream) for stream in group.streams)),
            Rule(commands=_LEASE, keys=tuple(_leases(names, group))),
        ]
    found += [
        Rule(commands=("sadd", "smembers"), keys=(names.streams,)),
        Rule(commands=("hset", "hdel", "incr"), keys=(names.dead, names.last_dead)),
        Rule(commands=("hkeys", "hmget", "hlen"), read=(names.dead,)),
    ]
    if any(module.trims for module in modules):
        found.append(Rule(commands=_TEND, keys=tuple(_parts(names, stream) for stream in STREAMS)))
    if app.operates:
        found.append(Rule(commands=_LETTERS, keys=(names.dead,)))
        found.append(Rule(commands=("xrange", "xdel"), keys=tuple(_parts(names, stream) for stream in STREAMS)))
    return found + [
        Rule(commands=("xdel",), keys=tuple(_parts(names, stream) for stream in module.deletes_from))
        for module in modules
        if module.deletes_from
    ]


def _of_keys(app: App, keys: KeyNames) -> list[Rule]:
    if any(module.makes_keys for module in app.modules):
        return [
            Rule(commands=("hget", "hset", "hgetall"), keys=(keys.by_digest, keys.by_id)),
            Rule(commands=("get", "set", "del"), keys=(f"{keys.sessions}*",)),
        ]
    return [Rule(commands=("hget", "get"), read=(keys.by_digest, f"{keys.sessions}*"))]


def line(name: str, password: str, prefix: str = PREFIX) -> str:
    """As it stands in an ACL file. `password`: `#` and its SHA-256, or `>` and itself."""
    first, *others = rules(name, prefix)
    return " ".join([f"user {name} reset on {password} resetchannels -@all {first}", *(f"({rule})" for rule in others)])


def acl(passwords: Mapping[str, str], prefix: str = PREFIX) -> str:
    """A whole ACL file: nobody gets in without a name."""
    return "\n".join(["user default reset off", *(line(name, passwords[name], prefix) for name in users()), ""])


def users() -> list[str]:
    return sorted([*APPS, UP])


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


def _leases(names: Names, group: Group) -> list[str]:
    """Keys of a group on either side of a migration."""
    known = (group.name, group_of(group.name, SERVICE), group_of(group.name, f"{SERVICE}{AT}*"))
    return [
        key
        for stream in group.streams
        for name in known
        for key in (names.leases(stream, name), names.members(stream, name))
    ]
