"""Leases: who renews is found, who does not is not, and nobody is found after he has left."""

import asyncio
from pathlib import Path

import pytest

from quickcomm.kernel import discovery
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.discovery import DirectoryRegistry, Instance, registered


def instance(name: str = "audio-1", pid: int = 1) -> Instance:
    return Instance(module="audio", name=name, pid=pid, version="1", socket=f"/run/{name}.sock")


def test_who_registers_is_found_until_the_lease_is_over(tmp_path: Path) -> None:
    clock = FakeClock()
    registry = DirectoryRegistry(tmp_path / "new", lease_s=1.5, monotonic=clock.monotonic)
    registry.put(instance())
    clock.advance(1.4)
    assert registry.instances() == [instance()]
    registry.put(instance())
    clock.advance(1.4)
    assert registry.instances() == [instance()]
    clock.advance(0.2)
    assert registry.instances() == []


def test_who_renews_while_the_directory_is_read_is_found(tmp_path: Path) -> None:
    now = 0.0
    owner = DirectoryRegistry(tmp_path, monotonic=lambda: now)

    def then_it_is_renewed() -> float:
        nonlocal now
        read = now
        now += 0.01
        owner.put(instance())
        return read

    owner.put(instance())
    now = 10 * discovery.LEASE_S
    owner.put(instance())
    assert DirectoryRegistry(tmp_path, monotonic=then_it_is_renewed).instances() == [instance()]


def test_who_leaves_is_not_found(tmp_path: Path) -> None:
    registry = DirectoryRegistry(tmp_path)
    registry.put(instance("audio-1"))
    registry.put(instance("audio-2"))
    registry.withdraw("audio-1")
    registry.withdraw("audio-1")
    assert registry.instances() == [instance("audio-2")]


def test_a_lease_from_before_the_machine_was_started_again_is_none(tmp_path: Path) -> None:
    """Its clock began anew, so that the old lease seems to be from the future."""
    clock = FakeClock()
    DirectoryRegistry(tmp_path, monotonic=clock.monotonic).put(instance())
    assert DirectoryRegistry(tmp_path, monotonic=lambda: 1.0).instances() == []


def test_rubbish_in_the_directory_is_nobody(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    (tmp_path / "y.json").write_text("{}")
    assert DirectoryRegistry(tmp_path).instances() == []
    assert DirectoryRegistry(tmp_path / "none").instances() == []


async def test_registered_renews_and_withdraws(tmp_path: Path) -> None:
    renewed = asyncio.Event()

    class Counting(DirectoryRegistry):
        count = 0

        def put(self, instance: Instance) -> None:
            super().put(instance)
            self.count += 1
            if self.count > 2:
                renewed.set()

    registry = Counting(tmp_path)
    async with registered(registry, instance()):
        assert registry.instances() == [instance()]
        await asyncio.wait_for(renewed.wait(), 30)
    assert registry.instances() == []


def test_a_renewal_may_be_missed_twice() -> None:
    assert discovery.LEASE_S > 3 * discovery.RENEW_EVERY_S


# -- a full disk ------------------------------------------------------------------------------------------------------


def fill(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)


def test_a_lease_is_renewed_where_not_a_block_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(5_000_000_000_000)
    registry = DirectoryRegistry(tmp_path, lease_s=1.5, monotonic=clock.monotonic)
    registry.put(instance())
    fill(monkeypatch)
    for _ in range(3):
        clock.advance(1.4)
        registry.put(instance())
        assert registry.instances() == [instance()]
    clock.advance(1.6)
    assert registry.instances() == []


def test_another_process_cannot_renew_the_lease_of_the_former_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = DirectoryRegistry(tmp_path)
    registry.put(instance(pid=1))
    fill(monkeypatch)
    with pytest.raises(OSError, match="space"):
        registry.put(instance(pid=2))


async def test_who_cannot_register_serves_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "RENEW_EVERY_S", 0.001)
    registry = DirectoryRegistry(tmp_path)
    with monkeypatch.context() as disk:
        fill(disk)
        entered = registered(registry, instance())
        await entered.__aenter__()
        assert registry.instances() == []
    async with asyncio.timeout(30):
        while not registry.instances():  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0)
    await entered.__aexit__(None, None, None)
