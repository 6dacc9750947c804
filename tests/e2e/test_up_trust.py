"""A whole site with TLS, keys in the store, and rights in it: as an operator has it, who changes all of them."""

import asyncio
import json
import re
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import NewSite
from tests.support.certificates import Authority
from tests.support.guarded import Guarded
from tests.support.server import quickcomm
from tests.support.site import Site

from quickcomm.kernel.messaging.bus.redis_address import for_user
from quickcomm.kernel.messaging.bus.redis_link import BusRefusedError, Link
from quickcomm.operate.up import store
from quickcomm.operate.up.access import Passwords, users


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("trusting")
    authority = Authority(folder / "tls")
    pair = authority.issue("edge", "127.0.0.1")
    made = Site(
        folder / "data", "--tls-cert", str(pair.certificate), "--tls-key", str(pair.key), "--deployment", "services"
    )
    made.url = made.url.replace("http:", "https:")
    trusted = ssl.create_default_context(cafile=str(authority.file))
    urllib.request.install_opener(urllib.request.build_opener(urllib.request.HTTPSHandler(context=trusted)))
    try:
        made.start()
        yield made
    finally:
        made.make_sure()
        urllib.request.install_opener(urllib.request.build_opener())
    assert made.left_behind() == []


@pytest.mark.long
def test_a_store_with_users_of_its_own(new_site: NewSite, tmp_path: Path) -> None:
    """As `quickcomm trust acl` has printed them; each service comes under its own name."""
    guarded = Guarded(tmp_path)
    guarded.valkey.start()
    own = new_site("--redis-url", guarded.url())
    try:
        own.start()
        assert own.get("/v1/utterances", "read").status == 200
        own.down()
        guarded.passwords.file("up").write_text("another")
        assert "password is another one" in quickcomm(
            *("up", "--redis-url", guarded.url(), "--port", "0", "--data-dir", str(own.data_dir)),
            statuses=(1,),
            errors=True,
        )
    finally:
        own.make_sure()
        guarded.valkey.stop()


def told(site: Site, *words: str) -> str:
    return quickcomm(*words, "--data-dir", str(site.data_dir))


def test_the_public_address_is_https_and_nothing_internal_is_there(site: Site) -> None:
    [up] = [row for row in site.status() if row["module"] == "up"]
    assert up["url"] == site.url
    assert site.get("/readyz").status == 200
    assert site.get("/internal/v1/usage", "admin").status == 404
    assert site.get("/v1/usage", "admin").status == 200  # asked of intelligence, with a token


def test_a_key_is_refused_everywhere_soon_after_it_was_revoked(site: Site) -> None:
    made = site.new_key("read")
    assert site.ask("GET", "/v1/utterances", made.key).status == 200
    told(site, "keys", "revoke", made.id)
    assert asyncio.run(_until(site, made.key)) == 401
    assert made.id in told(site, "keys", "list")


async def _until(site: Site, key: str) -> int:
    async with asyncio.timeout(20):
        while (answer := await asyncio.to_thread(site.ask, "GET", "/v1/utterances", key)).status == 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return answer.status


def test_keys_of_services_are_replaced_while_they_ask_each_other(site: Site) -> None:
    before = _kids(site)
    for more in ((), ("--at-once",)):
        assert "intelligence" in told(site, "trust", "rotate", *more)
        assert site.get("/v1/usage", "admin").status == 200
    assert len(_kids(site)) == 5  # of the three services, the executor of operations and the relay
    assert _kids(site).isdisjoint(before)


def _kids(site: Site) -> set[bytes]:
    return {path.read_bytes() for path in (site.layout.trust / "private").glob("*.jwk")}


def test_the_store_lets_nobody_in_without_his_password(site: Site) -> None:
    async def asked(url: str) -> Any:
        link = Link(url)
        try:
            return await link.call("HMGET", "quickcomm:home", "whole")
        finally:
            await link.aclose()

    for user in users():
        assert asyncio.run(asked(for_user(store.url(site.layout), user))) == [b"1"]
    with pytest.raises(BusRefusedError):
        asyncio.run(asked(f"unix://{site.layout.socket('valkey')}"))


def test_no_secret_is_in_a_log_or_in_a_command_line(site: Site) -> None:
    secrets = [Passwords(site.layout.access).file(user).read_text() for user in users()]
    secrets += [path.read_text().split('"d":"')[1][:43] for path in (site.layout.trust / "private").glob("*.jwk")]
    places: list[Path] = [*site.layout.logs.glob("*"), *(site.layout.root / "programs").glob("*")]
    places += [Path(f"/proc/{each.pid}/cmdline") for each in site.seen]
    places += [Path(f"/proc/{each.pid}/environ") for each in site.seen]
    text = b"".join(path.read_bytes() for path in places if path.is_file())
    assert b"password_file" in text
    for secret in secrets:
        assert secret.encode() not in text
    assert b"eyJ0eXAi" not in text  # how every token begins


def test_one_scrape_has_the_metrics_of_all_processes(site: Site) -> None:
    text = site.get("/metrics", "read").body.decode()
    named = set(re.findall(r'^quickcomm_metrics_reads_total\{process="([^"]+)"\}', text, re.MULTILINE))
    assert {name.partition("-")[0] for name in named} == {"audio", "intelligence", "operations"}
    assert re.search(r"^quickcomm_metrics_reads_total [1-9]", text, re.MULTILINE)  # the dashboard's own
    assert text.count("# TYPE quickcomm_metrics_reads_total counter") == 1
    assert 'process="' not in site.get("/metrics?of=process", "read").body.decode()
    assert site.get("/metrics", "read").body.decode().count("python_info{") == 4


def test_a_certificate_that_is_broken_is_an_alarm_until_it_is_mended(site: Site) -> None:
    certificate = site.data_dir.parent / "tls/1.pem"
    good = certificate.read_bytes()
    certificate.write_bytes(b"nonsense")
    assert "old one stays in force" in until(site, lambda alarms: "edge.certificate" in alarms)["edge.certificate"]
    assert site.get("/readyz").status == 200
    certificate.write_bytes(good)
    until(site, lambda alarms: "edge.certificate" not in alarms)


def until(site: Site, holds: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    """The alarms of `up` by code, once they are as they should be."""
    deadline = time.monotonic() + 30
    while True:
        [up] = [row for row in site.status() if row["module"] == "up"]
        alarms = {alarm["code"]: alarm["message"] for alarm in up.get("alarms", ())}
        if holds(alarms):
            return alarms
        assert time.monotonic() < deadline, alarms
        time.sleep(0.2)


def test_doctor_looks_at_every_process(site: Site) -> None:
    lines = quickcomm("doctor", "--json", "--data-dir", str(site.data_dir)).splitlines()
    found = {each["check"]: each for each in map(json.loads, lines)}
    assert site.url in found["server"]["detail"]
    assert {"process edge", "process audio-1", "process valkey"} <= set(found)
    assert all(each["result"] == "ok" for name, each in found.items() if name.startswith("process "))


def test_times_are_for_people(site: Site) -> None:
    site.new_key("read")
    head, *rows = quickcomm("keys", "list", "--data-dir", str(site.data_dir)).splitlines()
    assert "created " in head
    assert all(re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", row) for row in rows)


def test_the_first_start_has_a_clean_log(site: Site) -> None:
    logs = {path.name: path.read_text(errors="replace") for path in (site.data_dir / "logs").glob("*.log")}
    assert logs
    for name, text in {**logs, "up": site.log}.items():
        assert "Traceback" not in text, name
        assert "CRIT" not in text, name
