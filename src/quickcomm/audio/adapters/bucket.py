"""Recordings in a bucket: S3, or any server that speaks its language (obstore, the `object_store` crate).

A put is one request, and the object is there as a whole or not at all. Utterances wait for their recording, so that a
bucket which does not answer must not hold them up: it is given little time, and then left alone for a moment.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import ConfigurationError

if TYPE_CHECKING:
    from obstore.store import S3Store

SCHEME: Final = "s3"
PUT_WITHIN_S: Final = 2.0
LEFT_ALONE_S: Final = 5.0
LISTED_TOGETHER: Final = 1_000
ASKED_WITHIN: Final = timedelta(seconds=30)
NS: Final = 1_000_000_000


class BucketError(OSError):
    """The bucket does not take it, or does not answer."""


class _Found(msgspec.Struct, frozen=True):
    name: str
    at_ns: int


class Bucket:
    """A `Shelf` under `s3://bucket/prefix`. Credentials come from the environment (`AWS_…`), as with other S3 tools."""

    def __init__(self, url: str, clock: Clock, *, endpoint: str | None = None) -> None:
        """`endpoint`: the address of a server that is not Amazon's. Raises `ConfigurationError`; asks nobody yet."""
        self._clock = clock
        self._store = _opened(url, endpoint)
        self._away_until = 0.0

    async def put(self, name: str, content: bytes) -> None:
        from obstore.exceptions import BaseError  # noqa: PLC0415 - most sites have no bucket

        if self._clock.monotonic() < self._away_until:
            raise BucketError("The bucket did not answer a moment ago.")
        try:
            async with self._clock.timeout(PUT_WITHIN_S):
                await self._store.put_async(name, content)
        except (BaseError, OSError) as error:  # obstore has a `FileNotFoundError` of its own for a bucket that is none
            self._away_until = self._clock.monotonic() + LEFT_ALONE_S
            raise BucketError(_why(error)) from error

    async def purge(self, before_ns: int) -> None:
        """The bucket lists by name, so that what belongs to a conversation comes together."""
        from obstore.exceptions import BaseError  # noqa: PLC0415 - as above

        try:
            async for folder in self._folders():
                if max(found.at_ns for found in folder) < before_ns:
                    await self._store.delete_async([found.name for found in folder])
        except (BaseError, OSError) as error:
            raise BucketError(_why(error)) from error

    async def lacking(self, names: Sequence[str]) -> list[str]:
        """Return nothing: to ask for each would be a paid request."""
        del names
        return []

    async def delete(self, folders: Sequence[str], names: Sequence[str]) -> int:
        """Delete what is there: the bucket is asked for the files of each folder that is concerned."""
        from obstore.exceptions import BaseError  # noqa: PLC0415 - as above

        wanted, found = set(names), list[str]()
        try:
            for folder in {*folders, *(name.rpartition("/")[0] for name in names)}:
                async for page in self._store.list(prefix=folder, chunk_size=LISTED_TOGETHER):
                    found += [item["path"] for item in page if folder in folders or item["path"] in wanted]
            if found:
                await self._store.delete_async(found)
        except (BaseError, OSError) as error:
            raise BucketError(_why(error)) from error
        return len(found)

    async def _folders(self) -> AsyncIterator[Sequence[_Found]]:
        together: list[_Found] = []
        async for page in self._store.list(chunk_size=LISTED_TOGETHER):
            for item in page:
                found = _Found(item["path"], int(item["last_modified"].timestamp() * NS))
                if together and _folder(found) != _folder(together[0]):
                    yield together
                    together = []
                together.append(found)
        if together:
            yield together


def is_address(where: str) -> bool:
    """Of a bucket, or of something that cannot be one; else it is a directory."""
    return "://" in where


def _opened(url: str, endpoint: str | None) -> "S3Store":
    parts = urlsplit(url)
    if parts.scheme != SCHEME or not parts.hostname or parts.query:
        raise ConfigurationError(
            f"storage.recordings_url is no bucket: {url!r}. It looks like s3://bucket/prefix; "
            "the address of a server of your own is storage.recordings_endpoint."
        )
    if endpoint is not None and urlsplit(endpoint).scheme not in {"http", "https"}:
        raise ConfigurationError(
            f"storage.recordings_endpoint is no address: {endpoint!r}. It looks like https://s3.example."
        )
    try:
        from obstore.exceptions import BaseError  # noqa: PLC0415 - as above
        from obstore.store import S3Store  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError("Recordings in a bucket need obstore: pip install 'quickcomm[s3]'") from error
    try:
        return S3Store(
            parts.netloc,
            prefix=parts.path.strip("/") or None,
            config=None if endpoint is None else {"endpoint": endpoint},
            client_options={"allow_http": (endpoint or "").startswith("http://"), "timeout": ASKED_WITHIN},
            retry_config={"max_retries": 2, "retry_timeout": ASKED_WITHIN},
        )
    except (BaseError, ValueError) as error:
        raise ConfigurationError(f"The bucket {url} cannot be used: {_why(error)}") from error


def _folder(found: _Found) -> str:
    return found.name.rpartition("/")[0]


def _why(error: BaseException) -> str:
    """The first line: the others may have the request with its signature."""
    if isinstance(error, TimeoutError):
        return f"The bucket did not answer within {PUT_WITHIN_S:g} s."
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
