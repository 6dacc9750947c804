"""What the edge tells Envoy, without Envoy: routes, files, and what must never be logged."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.certificates import Authority

from quickcomm.apps import DEPLOYMENTS, RELAY_APP
from quickcomm.audio.declaration import INGESTS
from quickcomm.audio.module import ingest_class
from quickcomm.contracts.audio_socket import RELAYED
from quickcomm.edge.adapters import certificate as certificates
from quickcomm.edge.adapters.files import WatchedFiles
from quickcomm.edge.config import Backend, Config, _encoded, assignment, render, seconds
from quickcomm.edge.module import Edge, EdgeSettings, Front, Public, Tls
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.runtime.declaration import Route

Json = dict[str, Any]
PUBLIC = Public(host="127.0.0.1", port=80)
SERVICES = {app.name: app.routes for app in DEPLOYMENTS["services"] if app.routes}
ALL = {"all": DEPLOYMENTS["monolith"][0].routes}


def configured(
    settings: EdgeSettings | None = None,
    served: Mapping[str, Sequence[Route]] | None = None,
    front: Front | None = None,
) -> Config:
    files = WatchedFiles(Path("/somewhere"))
    names = (
        "listeners",
        "clusters",
        "routes",
        "inner-routes",
        "certificate",
        "endpoints-relay",
        "endpoints-audio",
        "endpoints-dashboard",
        "endpoints-all",
    )
    sources = {name: files.source(name) for name in names}
    admin = Path("/somewhere/envoy.sock")
    return render(PUBLIC, settings or EdgeSettings(), served or SERVICES, sources, admin, front=front)


def routes_of(config: Config) -> list[Json]:
    found: list[Json] = config.routes["virtual_hosts"][0]["routes"]
    return found


def connection_manager(config: Config) -> Json:
    found: Json = config.listeners[0]["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def test_each_purpose_goes_to_its_own_cluster() -> None:
    routes = routes_of(configured())
    served = {route["name"]: route["route"]["cluster"] for route in routes if "route" in route}
    assert served == {
        **dict.fromkeys(("audio-websocket", "twilio-websocket", "ingest-websocket"), "audio"),
        **dict.fromkeys(("audio", "twilio", "ingest"), "audio"),
        **dict.fromkeys(("live-websocket", "live", "health", "rest", "page"), "dashboard"),
    }
    assert routes[-1]["match"] == {"prefix": "/"}


def serves(match: Json, path: str) -> bool:
    if "safe_regex" in match:
        return re.fullmatch(match["safe_regex"]["regex"], path) is not None
    return path == match.get("path") or path.startswith(match.get("prefix", "\n"))


@pytest.mark.parametrize("ingest", INGESTS)
def test_every_ingest_is_reached_with_a_websocket_and_without(ingest: str) -> None:
    path = ingest_class(ingest).path.replace("{conversation_id}", "radio~7.a")
    first, second = [route for route in routes_of(configured()) if serves(route["match"], path)][:2]
    assert first["name"].endswith("-websocket")
    assert first["route"]["upgrade_configs"][0]["enabled"]
    assert (first["route"]["cluster"], second["route"]["cluster"]) == ("audio", "audio")


def test_a_conversation_is_hashed_as_a_bucket_is() -> None:
    routes = routes_of(configured())
    hashed = {
        route["name"]: route["route"]["hash_policy"] for route in routes if "hash_policy" in route.get("route", {})
    }
    assert set(hashed) == {"audio-websocket"}
    [policy] = hashed["audio-websocket"]
    rewrite = policy["header"]["regex_rewrite"]
    for path in ("/v1/conversations/radio~7.a/audio", "/v1/conversations/radio~7.a/audio?resume_token=T&after_seq=3"):
        assert re.sub(rewrite["pattern"]["regex"], rewrite["substitution"], path) == "audio:radio~7.a"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), st.text(max_size=5))
def test_a_channel_is_known_however_it_is_written_in_a_query(channel: str, other: str) -> None:
    pattern = re.compile(_encoded(channel))
    whole = "".join(f"%{byte:02X}" for byte in channel.encode())
    for written in (quote(channel), quote(channel, safe=""), quote_plus(channel), whole, whole.lower()):
        assert pattern.fullmatch(written)
    assert (pattern.fullmatch(quote_plus(other)) is not None) == (other == channel)
    assert not pattern.fullmatch(quote(f"{channel}x"))


def test_only_what_the_front_passes_on_may_say_that_it_is_relayed() -> None:
    front = Front(cluster="relay", routes=RELAY_APP.stands_before, socket=Path("/somewhere/inner.sock"))
    config = configured(front=front)
    assert config.routes["request_headers_to_remove"] == [RELAYED, "x-forwarded-host", "x-forwarded-port"]
    assert config.inner is not None
    assert "request_headers_to_remove" not in config.inner
    [host] = config.inner["virtual_hosts"]
    behind = {route["name"]: route["route"]["cluster"] for route in host["routes"]}
    assert behind == {"audio-websocket": "audio", "twilio-websocket": "audio"}
    before = {route["name"]: route["route"]["cluster"] for route in routes_of(config) if route["name"] in behind}
    assert before == dict.fromkeys(behind, "relay-or-audio")
    [_, inner] = config.listeners
    assert inner["address"] == {"pipe": {"path": "/somewhere/inner.sock", "mode": 0o600}}


def test_who_yields_has_longer_to_say_that_it_is_well(tmp_path: Path) -> None:
    edge = Edge(tmp_path, EdgeSettings(health_timeout_s=1.5))
    edge.write(Public(host="127.0.0.1", port=80), SERVICES)
    found = msgspec.json.decode((tmp_path / "xds/clusters/resources.json").read_bytes())["resources"]
    waits = {each["name"]: each["health_checks"][0]["timeout"] for each in found}
    assert waits == {"audio": seconds(1.5), "dashboard": seconds(6.0)}


def test_only_the_cluster_that_hears_is_sticky(tmp_path: Path) -> None:
    edge = Edge(tmp_path, EdgeSettings())
    edge.write(Public(host="127.0.0.1", port=80), SERVICES)
    found = msgspec.json.decode((tmp_path / "xds/clusters/resources.json").read_bytes())["resources"]
    assert {each["name"]: each["lb_policy"] for each in found} == {"audio": "MAGLEV", "dashboard": "LEAST_REQUEST"}


def test_only_websockets_have_no_limit_of_time() -> None:
    passed = [route for route in routes_of(configured()) if "route" in route]
    forever = {route["name"] for route in passed if "0s" in {route["route"]["timeout"], route["route"]["idle_timeout"]}}
    assert forever == {"audio-websocket", "twilio-websocket", "ingest-websocket", "live-websocket"}
    assert all(route["match"].get("headers") for route in passed if route["name"] in forever)


def test_the_access_log_has_no_query_and_no_header_that_may_hold_a_key() -> None:
    [log] = connection_manager(configured())["access_log"]
    told = " ".join(log["typed_config"]["log_format"]["json_format"].values())
    assert "REQ(:PATH)" not in told
    assert "%PATH(NQ)%" in told
    assert "REFERER" not in told
    assert "AUTHORIZATION" not in told
    assert "COOKIE" not in told


@given(st.text(max_size=40))
def test_no_setting_changes_the_structure(path: str) -> None:
    try:
        config = configured(EdgeSettings(otlp_url=f"http://127.0.0.1:4318/{path}"))
    except ConfigurationError:
        return
    provider = connection_manager(config)["tracing"]["provider"]["typed_config"]
    assert provider["http_service"]["http_uri"]["uri"] == f"http://127.0.0.1:4318/{path}"
    assert [each["name"] for each in config.clusters] == ["audio", "dashboard", "otlp"]


def test_durations_are_as_envoy_wants_them() -> None:
    assert [seconds(value) for value in (0, 5, 0.25, 20.0)] == ["0s", "5s", "0.25s", "20s"]


def test_a_file_is_replaced_only_when_it_changes(tmp_path: Path) -> None:
    files = WatchedFiles(tmp_path)
    first = files.put("e", [assignment("c", [Backend(socket="/a")])])
    path = tmp_path / "e" / "resources.json"
    before = path.stat().st_ino
    assert files.put("e", [assignment("c", [Backend(socket="/a")])]) == first
    assert path.stat().st_ino == before
    second = files.put("e", [assignment("c", [Backend(socket="/b")])])
    assert second != first
    assert msgspec.json.decode(path.read_bytes())["version_info"] == second
    assert [each.name for each in path.parent.iterdir()] == ["resources.json"]


def test_endpoints_are_the_same_in_any_order() -> None:
    one, two = Backend(socket="/a"), Backend(port=80)
    assert assignment("c", [one, two]) == assignment("c", [two, one])
    assert "endpoints" not in assignment("c", [])


def test_the_administration_is_on_a_socket_of_this_user_alone(tmp_path: Path) -> None:
    edge = Edge(tmp_path, EdgeSettings())
    first = msgspec.json.decode(edge.write(Public(host="127.0.0.1", port=80), ALL, {"all": [Backend(socket="/a")]}))
    assert first["admin"]["address"] == {"pipe": {"path": str(tmp_path / "envoy.sock"), "mode": 0o600}}
    served = msgspec.json.decode((tmp_path / "xds/endpoints-all/resources.json").read_bytes())
    assert "/a" in str(served)


def test_the_address_for_people() -> None:
    assert Public(host="0.0.0.0", port=80).url == "http://127.0.0.1:80"
    assert Public(host="::1", port=80).url == "http://[::1]:80"


def test_a_new_certificate_is_taken_over_once_the_disk_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "authority")
    pair = authority.issue("localhost", "127.0.0.1")
    edge = Edge(tmp_path / "edge", EdgeSettings())
    public = Public(host="127.0.0.1", port=80, tls=Tls(certificate=pair.certificate, key=pair.key))
    edge.write(public, ALL)
    authority.issue("localhost", "127.0.0.1", into=pair)

    def full(_path: Path, _content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(certificates, "_write", full)
        with pytest.raises(OSError, match="space"):
            edge.refresh_certificate()
    assert edge.refresh_certificate()
    assert not edge.refresh_certificate()
