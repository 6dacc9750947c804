"""Recordings in a bucket of a real server that speaks S3: whole, found again, deleted; nobody waits for it long."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator

import msgspec
import numpy as np
import obstore
import pytest
import soundfile
from tests.support.bucket import ACCESS, BucketServer, serving

from quickcomm.audio.adapters import bucket as module
from quickcomm.audio.adapters.bucket import Bucket, BucketError
from quickcomm.audio.adapters.recorder import FlacRecorder, encoded, file_name
from quickcomm.audio.ports import RecordingError
from quickcomm.kernel.clock import FakeClock

SOUND = (np.sin(np.arange(16_000) / 9) * 9_000).astype(np.int16)
NEVER_NS = 0
ALWAYS_NS = 2**62


@pytest.fixture(scope="module")
def server() -> Iterator[BucketServer]:
    with serving("sound", "bare") as made:
        yield made


@pytest.fixture(autouse=True)
def _access(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ACCESS.items():
        monkeypatch.setenv(name, value)


def shelf(server: BucketServer, url: str, clock: FakeClock | None = None) -> Bucket:
    return Bucket(url, clock or FakeClock(), endpoint=server.url)


async def names(bucket: Bucket) -> list[str]:
    found: list[str] = []
    async for page in bucket._store.list():
        found += [item["path"] for item in page]
    return sorted(found)


@pytest.mark.parametrize("url", ["s3://sound/site/one", "s3://bare"])
async def test_what_was_said_is_kept_to_the_sample(server: BucketServer, url: str) -> None:
    bucket = shelf(server, url)
    recorder = FlacRecorder(bucket)
    await asyncio.gather(*(recorder.record("main", "shift~1.a:0:512", SOUND) for _ in range(4)))
    name = file_name("main", "shift~1.a:0:512")
    assert await names(bucket) == [name]
    stored = await obstore.get_async(bucket._store, name)
    samples, rate = soundfile.read(io.BytesIO(bytes(await stored.bytes_async())), dtype="int16")
    assert rate == 16_000
    assert (samples == SOUND).all()
    await recorder.purge(ALWAYS_NS)
    assert await names(bucket) == []


async def test_a_conversation_is_deleted_as_a_whole_when_nothing_was_added_since(
    server: BucketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LISTED_TOGETHER", 2)  # over several pages
    bucket, other = shelf(server, "s3://sound/a"), shelf(server, "s3://sound/ab")
    for name in ("c-1/0-0", "c-1/0-512", "c-1/1-0", "c-2/0-0"):
        await bucket.put(f"main/{name}.flac", b"old")
    await other.put("main/c-1/0-0.flac", b"of another site")
    real = bucket._folders

    async def aged() -> AsyncIterator[list[module._Found]]:
        """As if all but one were from long ago."""
        async for folder in real():
            yield [
                found if found.name.endswith("c-1/1-0.flac") else msgspec.structs.replace(found, at_ns=1)
                for found in folder
            ]

    monkeypatch.setattr(bucket, "_folders", aged)
    await bucket.purge(1_000)
    assert await names(bucket) == ["main/c-1/0-0.flac", "main/c-1/0-512.flac", "main/c-1/1-0.flac"]
    monkeypatch.setattr(bucket, "_folders", real)
    await bucket.purge(NEVER_NS)
    assert len(await names(bucket)) == 3
    await bucket.purge(ALWAYS_NS)
    assert await names(bucket) == []
    assert await names(other) == ["main/c-1/0-0.flac"]


async def test_a_bucket_that_is_not_there_is_told(server: BucketServer) -> None:
    with pytest.raises(RecordingError, match="c:0:0"):
        await FlacRecorder(shelf(server, "s3://nobodys")).record("main", "c:0:0", SOUND)


async def test_a_server_that_is_away_is_left_alone_for_a_moment() -> None:
    """What people say must come out all the same: no utterance waits for it again and again."""
    clock = FakeClock(limits=0.1)
    with serving("sound") as server:
        bucket = shelf(server, "s3://sound", clock)
        await bucket.put("main/c-1/0-0.flac", encoded(SOUND))
        server.stop()
        with pytest.raises(BucketError):
            await bucket.put("main/c-1/0-1.flac", b"x")
        server.start("sound")
        with pytest.raises(BucketError, match="a moment ago"):
            await bucket.put("main/c-1/0-2.flac", b"x")
        clock.advance(module.LEFT_ALONE_S)
        clock.limits = 10.0
        await bucket.put("main/c-1/0-2.flac", b"x")
        assert await names(bucket) == ["main/c-1/0-2.flac"]


async def test_no_secret_is_told(server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    with pytest.raises(BucketError) as failed:
        await shelf(server, "s3://nobodys").put("x", b"x")
    assert "very-secret" not in str(failed.value)
    assert "Signature" not in str(failed.value)
