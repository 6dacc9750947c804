"""A whole site from one command: as without an edge, through crashes of each of its parts, and nothing is left."""

import asyncio
import json
import os
import secrets
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from tests.e2e.conftest import NewSite
from tests.support.onlooker import onlooking
from tests.support.ports import free_port
from tests.support.resuming import Heard, assert_as_undisturbed, stream
from tests.support.server import command, quickcomm
from tests.support.site import Site
from tests.support.talk import Talk
from tests.support.wire import connected, converse, new_id, texts

from quickcomm.client.audio_client import Event
from quickcomm.contracts.audio_socket import Ack, Utterance


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    shared = Site(tmp_path_factory.mktemp("up") / "data")
    try:
        shared.start()
        yield shared
    finally:
        shared.make_sure()


def refused(*arguments: str) -> str:
    """Run a command that must fail in one line, without a trace; gives what it said."""
    done = subprocess.run([command(), *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


# -- as without an edge -----------------------------------------------------------------------------------------------


async def test_a_conversation_through_the_edge(site: Site, talk: Talk) -> None:
    wire = await converse(site.url, site.key(), talk.wire)
    assert len(wire.of("utterance")) >= talk.utterances
    listed = await site.until(
        f"/v1/utterances?conversation={wire.conversation_id}",
        lambda body: len(body["items"]) == len(wire.of("utterance")),
    )
    assert {card["text"] for card in listed["items"]} == {event["text"] for event in wire.of("utterance")}


async def test_a_live_page_through_the_edge(site: Site, talk: Talk) -> None:
    async with onlooking(site) as page:
        wire = await converse(site.url, site.key(), talk.wire)
        said = wire.of("utterance")
        await page.until(lambda one: all(one.classified(each["utterance_id"]) for each in said))
    assert said


def test_refusals_come_from_the_server_as_they_are(site: Site) -> None:
    assert site.get("/v1/tasks").json()["code"] == "unauthorized"
    assert site.get("/v1/nothing", role="read").status == 404
    assert site.get("/healthz").status == 200
    assert site.get("/").status in {200, 503}  # the page may not be built


async def test_a_stranger_gets_no_websocket(site: Site) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(f"{site.url}/v1/conversations/x/audio?key=nonsense")
    assert caught.value.status == 401


async def test_a_page_session_knows_its_own_origin_behind_the_edge(site: Site) -> None:
    """The cookie is good for the edge's own address and for no other page."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        body = {"key": site.key("read")}
        async with session.post(f"{site.url}/v1/session", json=body, headers={"Origin": site.url}) as answer:
            assert answer.ok
        async with session.ws_connect(f"{site.url}/v1/live", headers={"Origin": site.url}) as live:
            assert json.loads((await live.receive()).data)["type"] == "hello"
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(f"{site.url}/v1/live", headers={"Origin": "http://evil.example"})
        assert caught.value.status == 403


# -- what the operator sees -------------------------------------------------------------------------------------------


def test_status_has_a_line_a_process(site: Site) -> None:
    rows = {row["module"]: row for row in site.status()}
    assert set(rows) == {"up", "supervisor", "valkey", "edge", "operations", "monolith"}
    assert all(row["healthy"] and row["pid"] > 0 and row["version"] for row in rows.values())
    assert rows["monolith"]["serving"] is True
    assert rows["up"]["url"] == rows["monolith"]["url"] == site.url
    assert "monolith" in quickcomm("status", "--data-dir", str(site.data_dir))


def test_other_commands_work_beside_it(site: Site) -> None:
    where = ("--data-dir", str(site.data_dir))
    site.key("admin")
    assert "admin" in quickcomm("keys", "list", *where)
    findings = [json.loads(line) for line in quickcomm("doctor", "--json", *where).splitlines()]
    assert site.url in {row["check"]: row for row in findings}["server"]["detail"]


def test_only_the_edge_has_a_port(site: Site) -> None:
    """Everything else listens on sockets that this user alone can reach."""
    ports = set()
    for identity in (
        site.process(module) for module in ("up", "supervisor", "valkey", "edge", "operations", "monolith")
    ):
        inodes = {str(path.readlink()) for path in Path(f"/proc/{identity.pid}/fd").iterdir() if path.is_symlink()}
        for line in Path(f"/proc/{identity.pid}/net/tcp").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in inodes:
                ports.add((identity.name, int(local.partition(":")[2], 16)))
    assert ports == {("edge", site.port)}
    assert site.layout.root.stat().st_mode & 0o077 == 0


def test_keys_are_in_no_log(site: Site) -> None:
    """Standard output is a file here, as under systemd: the first key would stay in it."""
    assert f"quickcomm keys create --role admin --data-dir {site.data_dir}" in site.log
    assert "qc_admin_" not in site.log
    for path in site.layout.logs.iterdir():
        assert "qc_admin_" not in path.read_text()
        assert site.key() not in path.read_text()


def test_the_monolith_is_not_scaled(site: Site) -> None:
    said = refused("scale", "monolith=2", "--data-dir", str(site.data_dir))
    assert "one database" in said
    assert "MODULE=N" in refused("scale", "monolith", "--data-dir", str(site.data_dir))
    assert "There are: valkey, edge, monolith" in refused("restart", "radio", "--data-dir", str(site.data_dir))


def test_a_second_one_on_the_same_data_is_refused(site: Site) -> None:
    said = refused("up", "--port", str(free_port()), "--data-dir", str(site.data_dir))
    assert "quickcomm down" in said
    assert "Another QuickComm" in refused("serve", "--port", "0", "--data-dir", str(site.data_dir))


# -- what cannot be ---------------------------------------------------------------------------------------------------


def test_a_taken_port_is_told(site: Site, tmp_path: Path) -> None:
    said = refused("up", "--port", str(site.port), "--data-dir", str(tmp_path / "data"))
    assert f"Port {site.port} is taken" in said
    assert not Site(tmp_path / "data").layout.root.exists()


def test_a_store_that_is_not_there_is_told(tmp_path: Path) -> None:
    where = ("--data-dir", str(tmp_path / "data"), "--port", str(free_port()))
    assert "--redis-url" in refused("up", "--redis-url", f"redis://127.0.0.1:{free_port()}/0", *where)
    assert "--redis-url is wrong" in refused("up", "--redis-url", "nonsense", *where)


def test_half_of_tls_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("x")
    said = refused("up", "--tls-cert", str(tmp_path / "cert.pem"), "--data-dir", str(tmp_path / "data"))
    assert "--tls-key" in said


def test_nothing_runs_is_said(tmp_path: Path) -> None:
    where = ("--data-dir", str(tmp_path / "data"))
    assert "quickcomm up" in refused("restart", "monolith", *where)
    assert quickcomm("down", *where) == "Nothing runs.\n"


# -- detached, and gone -----------------------------------------------------------------------------------------------


@pytest.mark.long
def test_detached_it_goes_on_until_down(new_site: NewSite) -> None:
    site = new_site()
    said = quickcomm("up", "--detach", "--port", str(site.port), "--data-dir", str(site.data_dir), timeout=300)
    assert site.url in said
    assert "keys create --role admin" in said
    where = ("up", "--detach", "--data-dir", str(site.data_dir))
    assert f"runs already: {site.url}" in quickcomm(*where, "--port", str(site.port))
    assert f"runs already: {site.url}" in quickcomm(*where)
    other = refused(*where, "--port", "1", "--deployment", "services", "--redis-url", "redis://:secret@x")
    assert f"--port 1 (it has {site.port})" in other
    assert "--deployment services (it has monolith)" in other
    assert "--redis-url" in other
    assert "secret" not in other
    assert all(row["healthy"] for row in site.status())
    assert site.get("/readyz").status == 200
    assert site.down() == "Stopped.\n"
    assert len(site.seen) == 6
    assert site.left_behind() == []
    assert "topology.stopping" in (site.layout.logs / "up.log").read_text()


async def test_ctrl_c_finishes_what_was_said(new_site: NewSite, talk: Talk) -> None:
    """The client is told to come back, all that it had said is written down, and nothing is left."""
    site = new_site()
    await asyncio.to_thread(site.start)
    key = site.key()
    conversation, token = new_id(), secrets.token_hex(16)
    async with connected(site.url, key, conversation, resume_token=token) as wire:
        await wire.until("ready")
        await wire.send(talk.wire, 3_200)
        await wire.until("utterance")
        site.terminate(signal.SIGINT)
        await wire.until("reconnect")
        assert await wire.until_closed() == 1012
    assert await asyncio.to_thread(site.wait, 60) == 0
    assert site.left_behind() == []
    await asyncio.to_thread(site.start)
    async with connected(site.url, key, conversation, resume_token=token, after_seq=wire.last_seq) as rest:
        ready = await rest.until("ready")
        await rest.send(talk.wire[2 * ready["next_offset"] :], 3_200)
        await rest.end()
    assert len(texts([*wire.heard, *rest.heard]).split()) > 0.8 * len(talk.words.split())


def test_it_can_be_stopped_while_it_starts(new_site: NewSite) -> None:
    site = new_site()
    site.launch()
    while "process=edge" not in site.log:
        assert site._process is not None
        assert site._process.poll() is None, site.log
    site.terminate()
    assert site.wait(60) == 0
    assert site.left_behind() == []


# -- crashes ----------------------------------------------------------------------------------------------------------


async def undisturbed(site: Site, talk: Talk) -> Heard:
    return await stream(site.url, site.key(), talk.wire)


class Once:
    """Does something at the first event of a kind."""

    def __init__(self, kind: type[Event], do: Callable[[], None]) -> None:
        self._kind = kind
        self._do = do
        self.done = False

    def __call__(self, event: Event) -> None:
        if not self.done and isinstance(event, self._kind):
            self.done = True
            self._do()


async def survives(site: Site, talk: Talk, kind: type[Event], do: Callable[[], None]) -> None:
    before = await undisturbed(site, talk)
    once = Once(kind, do)
    after = await stream(site.url, site.key(), talk.wire, once)
    assert once.done
    assert_as_undisturbed(after, before)


async def test_a_rolling_restart_loses_nothing(site: Site, talk: Talk) -> None:
    old = site.process("monolith")
    restarting: list[subprocess.Popen[bytes]] = []

    def restart() -> None:
        restarting.append(subprocess.Popen([command(), "restart", "monolith", "--data-dir", str(site.data_dir)]))

    await survives(site, talk, Utterance, restart)
    assert await asyncio.to_thread(restarting[0].wait, 120) == 0
    assert site.process("monolith") != old


@pytest.mark.parametrize("module", ["monolith", "edge", "valkey"])
async def test_a_killed_process_comes_back_and_nothing_is_lost(site: Site, talk: Talk, module: str) -> None:
    victim = site.process(module)
    await survives(site, talk, Ack, lambda: os.kill(victim.pid, signal.SIGKILL))
    await asyncio.to_thread(site.wait_ready)
    assert site.process(module) != victim
    [row] = [row for row in site.status() if row["module"] == module]
    assert row["restarts"] >= 1


@pytest.mark.long
async def test_when_up_is_killed_the_talk_goes_on_and_the_next_up_takes_over(new_site: NewSite, talk: Talk) -> None:
    site = new_site()
    await asyncio.to_thread(site.start)
    site.key()
    before = {module: site.process(module) for module in ("supervisor", "valkey", "edge", "monolith")}
    reference = await undisturbed(site, talk)
    site.kill()
    heard = await stream(site.url, site.key(), talk.wire)  # nobody looks after it, and it works
    assert_as_undisturbed(heard, reference)
    await asyncio.to_thread(site.start)
    assert {module: site.process(module) for module in before} == before
    await converse(site.url, site.key(), talk.wire)
    site.down()
    assert site.left_behind() == []


@pytest.mark.long
def test_the_next_up_goes_on_with_the_options_of_one_that_was_killed(new_site: NewSite) -> None:
    site = new_site("--deployment", "services", "--pack", "callcentre")
    site.start()
    before = {name: site.process(name) for name in ("audio", "intelligence", "dashboard")}
    site.kill()
    assert stat.S_IMODE(site.layout.options.stat().st_mode) == 0o600
    site._flags = ()
    site.start()
    assert {name: site.process(name) for name in before} == before
    assert "As before, for it was cut off: --deployment --pack." in site.log
    site.down()
    assert site.left_behind() == []


@pytest.mark.long
def test_what_a_killed_up_leaves_is_stopped_by_down(new_site: NewSite) -> None:
    site = new_site()
    site.start()
    site.kill()
    rows = site.status()
    assert {row["module"]: row["state"] for row in rows}["monolith-1"] == "left behind"
    where = ("--data-dir", str(site.data_dir))
    said = quickcomm("restart", "monolith", *where, statuses=(1,), errors=True)
    assert "was cut off" in said
    assert "quickcomm down" in said
    assert "monolith-1" in site.down()
    assert site.left_behind() == []


@pytest.mark.long
def test_when_the_supervisor_is_killed_everything_begins_again(new_site: NewSite) -> None:
    site = new_site()
    site.start()
    before = site.process("supervisor")
    monolith = site.process("monolith")
    os.kill(before.pid, signal.SIGKILL)
    while "topology.again" not in site.log:
        assert site._process is not None
        assert site._process.poll() is None, site.log
    site.wait_ready()
    assert site.process("supervisor") != before
    assert site.process("monolith") != monolith
    site.down()
    assert site.left_behind() == []


@pytest.mark.long
def test_after_everything_was_killed_the_next_up_begins_anew(new_site: NewSite) -> None:
    site = new_site()
    site.start()
    left = site.process("monolith")
    supervisor = site.process("supervisor")
    site.kill()
    os.kill(supervisor.pid, signal.SIGKILL)
    site.start()
    assert site.process("monolith") != left
    site.down()
    assert site.left_behind() == []
