"""A full disk and a store in trouble, under `up` with radios on the air: nobody is lost, and people are told.

Each prints its figures: pytest -s -m "long or not long" tests/e2e/test_site_faults.py
"""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.e2e.conftest import NewSite
from tests.support.mounts import fill, small_disk
from tests.support.proxy import proxied
from tests.support.radios import Field, on_the_air
from tests.support.server import Server, quickcomm
from tests.support.site import Site
from tests.support.talk import Talk
from tests.support.valkey import Valkey

from quickcomm.kernel.messaging.bus.redis_address import for_user
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.operate.up import store as own_store

ALARM_WITHIN_S: Final = 5.0
WHOLE_WITHIN_S: Final = 10.0
BUS: Final = "bus.unavailable"
LOST: Final = "store.lost"
FULL: Final = "disk.full"


def told(what: str, alarm_s: float, whole_s: float) -> None:
    sys.stdout.write(f"\n{what}: alarm after {alarm_s:.1f} s, whole again after {whole_s:.1f} s\n")
    assert alarm_s <= ALARM_WITHIN_S
    assert whole_s <= WHOLE_WITHIN_S


def nothing_lost(field: Field) -> None:
    for radio in field.radios:
        ledger = radio.ended.ledger
        assert ledger.received == radio.client.produced
        assert ledger.gap == 0
        assert ledger.balanced
        starts = [each.start_offset for each in radio.utterances]
        assert starts == sorted(set(starts))


# -- the disk ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", megabytes=64) as mounted:
        yield mounted


@pytest.mark.long
@pytest.mark.parametrize("full_s", [5, 60])
async def test_a_full_disk_under_a_detached_up(full_s: int, disk: Path, talk: Talk) -> None:
    site = Site(disk)
    start = ("up", "--detach", "--port", str(site.port), "--data-dir", str(disk))
    await asyncio.to_thread(quickcomm, *start, timeout=300)
    try:
        up = site.process("up")
        async with on_the_air(site, talk) as field:
            began = time.monotonic()
            ballast = fill(disk)
            alarm_s = await field.until(lambda: field.page.alarmed(FULL, began))
            assert "Make room" in field.page.words(FULL)
            [row] = [row for row in await asyncio.to_thread(site.status) if row["module"] == "up"]
            assert [alarm["code"] for alarm in row["alarms"]] == [FULL]
            until = time.monotonic() + full_s
            while time.monotonic() < until:
                fill(disk)  # what is freed meanwhile is taken as well
                assert (await asyncio.to_thread(site.get, "/healthz")).status == 200
                await asyncio.sleep(0.5)
            ballast.unlink()
            whole_s = await field.until_whole({FULL, BUS})
        assert site.process("up") == up
        nothing_lost(field)
        told("full disk", alarm_s, whole_s)
    finally:
        await asyncio.to_thread(site.make_sure)


# -- the store --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def site(new_site: NewSite) -> Site:
    made = new_site("--deployment", "services")
    await asyncio.to_thread(made.start)
    return made


@pytest.mark.long
async def test_an_emptied_store(site: Site, talk: Talk) -> None:
    revoked = site.new_key("ingest")
    await asyncio.to_thread(quickcomm, "keys", "revoke", revoked.id, "--data-dir", str(site.data_dir))
    async with on_the_air(site, talk) as field:
        before = await asyncio.to_thread(quickcomm, "keys", "list", "--json", "--data-dir", str(site.data_dir))
        began = time.monotonic()
        await flush(site)
        alarm_s = await field.until(lambda: field.page.alarmed(LOST, began))
        whole_s = await field.until_whole({BUS})
        after = time.monotonic()
        await field.until(lambda: all(radio.spoke_after(after) for radio in field.radios), within_s=90)
        listed = await asyncio.to_thread(quickcomm, "keys", "list", "--json", "--data-dir", str(site.data_dir))
    assert listed == before
    assert "Keys were put back" in field.page.words(LOST)
    for radio in field.radios:
        assert radio.ended.ledger.received == radio.client.produced
        assert radio.ended.ledger.balanced
    assert (await asyncio.to_thread(site.ask, "GET", "/v1/channels", revoked.key)).status == 401
    told("emptied store", alarm_s, whole_s)


async def flush(site: Site) -> None:
    """Not as a service: none of them may. Our own Valkey has no user who can, so its keys are deleted one by one."""
    link = Link(for_user(own_store.url(site.layout), "up"))
    try:
        cursor, found = b"0", set()
        while True:
            cursor, keys = await link.call("SCAN", cursor, "COUNT", 1000)
            found |= set(keys)
            if int(cursor) == 0:
                break
        await link.call("UNLINK", *found)
    finally:
        await link.aclose()


@pytest.mark.long
def test_a_store_that_came_back_empty_between_two_starts(new_site: NewSite) -> None:
    """At the address where it was, so that it is no wrong one: keys are put back, and people are told."""
    site = new_site()
    site.start()
    read, gone = site.key("read"), site.new_key("ingest")
    quickcomm("keys", "revoke", gone.id, "--data-dir", str(site.data_dir))
    site.down()
    shutil.rmtree(site.layout.store)
    site.launch()
    Server.wait_ready(site)
    assert site.ask("GET", "/v1/channels", read).status == 200
    assert site.ask("GET", "/v1/channels", gone.key).status == 401
    rows = site.status()
    assert LOST in {alarm["code"] for row in rows for alarm in row.get("alarms", ())}
    site.down()


@pytest.mark.long
async def test_a_store_that_freezes_for_half_a_minute(site: Site, talk: Talk) -> None:
    pid = site.process("valkey").pid
    async with on_the_air(site, talk) as field:
        began = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        try:
            alarm_s = await field.until(lambda: field.page.alarmed(BUS, began))
            await asyncio.sleep(30 - (time.monotonic() - began))
        finally:
            os.kill(pid, signal.SIGCONT)
        whole_s = await field.until_whole({BUS})
    nothing_lost(field)
    told("store frozen for 30 s", alarm_s, whole_s)


@pytest.mark.long
async def test_a_network_that_stalls_for_twenty_seconds(new_site: NewSite, talk: Talk, tmp_path: Path) -> None:
    server = Valkey(tmp_path / "store")
    server.start()
    try:
        async with proxied(server.port) as proxy:
            site = new_site("--deployment", "services", "--redis-url", proxy.url.replace("http", "redis"))
            await asyncio.to_thread(site.start)
            async with on_the_air(site, talk) as field:
                began = time.monotonic()
                frozen = [*proxy.links]
                for link in frozen:
                    link.freeze()
                proxy.is_stalled = True
                alarm_s = await field.until(lambda: field.page.alarmed(BUS, began))
                await asyncio.sleep(20 - (time.monotonic() - began))
                proxy.is_stalled = False
                for link in proxy.links:
                    link.thaw()
                whole_s = await field.until_whole({BUS})
                rows = {row["module"]: row for row in await asyncio.to_thread(site.status)}
            await asyncio.to_thread(site.down)
        nothing_lost(field)
        assert rows["store"]["healthy"]
        assert rows["store"]["policy"] == "noeviction"
        assert rows["store"]["persistence"] == "append-only file"
        told("network stalled for 20 s", alarm_s, whole_s)
    finally:
        server.stop()
