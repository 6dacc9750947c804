"""A copy of a site's keys beside the store, and how a store that has lost its data gets them back.

The file has what the store has: SHA-256 digests of secrets with 256 random bits, no secret. Keys are never deleted, so
that copy and store are joined: what either has is kept, and what was revoked in either stays revoked.
"""

import asyncio
from pathlib import Path
from typing import Final

import msgspec
import structlog

from quickcomm.kernel.errors import MALFORMED, ConfigurationError
from quickcomm.kernel.files import replace_file
from quickcomm.kernel.keys.port import Key
from quickcomm.kernel.keys.redis import KeyNames
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.messaging.bus.redis_names import PREFIX

Keys = dict[bytes, Key]
_stored: Final = msgspec.msgpack.Decoder(Key)

log = structlog.get_logger(__name__)


class _Copied(msgspec.Struct, frozen=True, kw_only=True):
    digest: str
    key: Key


class _File(msgspec.Struct, frozen=True, kw_only=True):
    store: str
    keys: list[_Copied]


class KeyCopy:
    """`store`: the address of the store whose keys these are, without a password."""

    def __init__(self, path: Path, store: str, link: Link, prefix: str = PREFIX) -> None:
        self._path = path
        self._store = store
        self._link = link
        self._names = KeyNames(prefix)
        self._written: _File | None = None
        self._is_told = False
        self._joining = asyncio.Lock()

    def is_of_this_store(self) -> bool:
        """Return True if the copy was made of the store at this address: if it is empty now, it has lost its data.

        Raises `ConfigurationError` where the file is damaged.
        """
        return self._read().store == self._store

    async def join(self) -> int:
        """Bring both up to date; return how many keys the store had lost.

        On a full disk the copy is written the next time. Raises `QuickCommError` of the store, and
        `ConfigurationError` where the file is damaged.
        """
        async with self._joining:
            return await self._join()

    async def _join(self) -> int:
        known = {bytes.fromhex(each.digest): each.key for each in self._read().keys}
        found: dict[bytes, bytes] = await self._link.call("HGETALL", self._names.by_digest)
        there = {digest: _stored.decode(key) for digest, key in found.items()}
        both = {digest: _joined(known.get(digest), there.get(digest)) for digest in {**known, **there}}
        for digest, key in both.items():
            if there.get(digest) != key:
                await self._put(digest, key)
        self._save(both)
        return len(both.keys() - there.keys())

    async def _put(self, digest: bytes, key: Key) -> None:
        await self._link.call("HSET", self._names.by_id, key.id, digest)
        # Who revokes it meanwhile must not be overruled; a key that is revoked here is so for good.
        how = "HSETNX" if key.revoked_ns is None else "HSET"
        await self._link.call(how, self._names.by_digest, digest, msgspec.msgpack.encode(key))

    def _read(self) -> _File:
        if self._written is not None:
            return self._written
        if not self._path.exists():
            return _File(store="", keys=[])
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_File)
        except MALFORMED:
            raise ConfigurationError(
                f"The copy of the site's keys, {self._path}, is damaged. Put it aside: a new one is made of the store."
            ) from None

    def _save(self, keys: Keys) -> None:
        ordered = sorted(keys.items(), key=lambda item: (item[1].created_ns, item[1].id))
        new = _File(store=self._store, keys=[_Copied(digest=digest.hex(), key=key) for digest, key in ordered])
        if new == self._written:
            return
        try:
            replace_file(self._path, msgspec.json.encode(new))
        except OSError as error:
            if not self._is_told:
                log.warning("keys.not_copied", error=str(error))
            self._is_told = True
        else:
            self._written, self._is_told = new, False


def _joined(one: Key | None, other: Key | None) -> Key:
    key = one or other
    assert key is not None, "one of them has it"  # noqa: S101 - a programming error
    revoked = [each.revoked_ns for each in (one, other) if each is not None and each.revoked_ns is not None]
    return msgspec.structs.replace(key, revoked_ns=min(revoked, default=None))
