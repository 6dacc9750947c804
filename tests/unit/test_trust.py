"""Service tokens: only what the right service signed for us, now, is let in; keys change while everything runs."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from click.testing import CliRunner
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from joserfc import jwt
from tests.support.examples import examples
from tests.support.services import NAMES, Services, call, token_of

from quickcomm.cli.trust import trust_group
from quickcomm.kernel.errors import ConfigurationError, ForbiddenError
from quickcomm.kernel.http import create_app
from quickcomm.kernel.settings import TrustSettings
from quickcomm.kernel.trust import ServiceTrust, UntrustedError, trust_of
from quickcomm.kernel.trust.directory import KEEP_S, private_file, public_folder
from quickcomm.kernel.trust.jwk import Jwks, PrivateJwk, PublicJwk, generate, parse_private
from quickcomm.kernel.trust.service import GRACE_S, LEEWAY_S, LIFE_S, LONGEST, RENEW_S


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return Services(tmp_path / "trust")


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Services:
    """For properties: nothing is changed in it."""
    return Services(tmp_path_factory.mktemp("trust"))


def own_key(services: Services, name: str) -> PrivateJwk:
    return parse_private(private_file(services.root, name).read_bytes())


def signed(services: Services, by: str = "dashboard", header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A token as its owner could make it, with other claims than usual."""
    jwk = own_key(services, by)
    now = int(services.now)
    said = {"iss": by, "aud": "intelligence", "iat": now, "nbf": now, "exp": now + LIFE_S, "jti": "1", **claims}
    said = {name: value for name, value in said.items() if value is not None}
    head = {"alg": "Ed25519", "typ": "JWT", "kid": jwk.kid, **(header or {})}
    return jwt.encode(head, said, jwk.key(), algorithms=["Ed25519"])


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def opened(token: str) -> dict[str, Any]:
    text = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return found


# -- what is let in ---------------------------------------------------------------------------------------------------


def test_a_service_is_known_by_its_token(services: Services) -> None:
    token = token_of(services.trust("dashboard").headers("intelligence"))
    core = services.trust("intelligence")
    assert core.require(call(token), "dashboard") == "dashboard"
    assert core.require(call(token)) == "dashboard"
    assert set(opened(token)) == {"iss", "aud", "iat", "nbf", "exp", "jti"}


def test_tokens_are_used_again_until_they_are_nearly_over(services: Services) -> None:
    dashboard, core = services.trust("dashboard"), services.trust("intelligence")
    first = dashboard.headers("intelligence")
    assert dashboard.headers("intelligence") == first
    assert dashboard.headers("audio") != first
    services.now += LIFE_S - RENEW_S
    assert dashboard.headers("intelligence") == first
    services.now += 1
    second = dashboard.headers("intelligence")
    assert second != first
    assert core.require(call(token_of(first))) == core.require(call(token_of(second))) == "dashboard"


def test_what_is_given_out_cannot_spoil_the_cache(services: Services) -> None:
    dashboard = services.trust("dashboard")
    dashboard.headers("intelligence")["X"] = "y"
    assert set(dashboard.headers("intelligence")) == {"Authorization"}


def test_a_clock_that_is_put_back_gives_new_tokens(services: Services) -> None:
    dashboard = services.trust("dashboard")
    first = dashboard.headers("intelligence")
    services.now -= 3_600
    assert dashboard.headers("intelligence") != first
    assert services.trust("intelligence").require(call(token_of(dashboard.headers("intelligence")))) == "dashboard"


# -- what is not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, "", "qc_read_" + "A" * 43, "a.b.c", "...", "e30.e30.", "é.é.é", "x y"])
def test_what_is_no_token_is_refused(services: Services, token: str | None) -> None:
    with pytest.raises(UntrustedError):
        services.trust("intelligence").require(call(token))


def test_two_headers_are_refused(services: Services) -> None:
    token = token_of(services.trust("dashboard").headers("intelligence"))
    request = make_mocked_request("GET", "/", headers=[("Authorization", f"Bearer {token}")] * 2)
    with pytest.raises(UntrustedError):
        services.trust("intelligence").require(request)


@examples(300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_altered_token_is_refused(lasting: Services, data: st.DataObject) -> None:
    token = token_of(lasting.trust("dashboard").headers("intelligence"))
    place = data.draw(st.integers(0, len(token) - 2))  # the very last character has bits that mean nothing
    other = data.draw(st.characters(min_codepoint=33, max_codepoint=126).filter(lambda x: x != token[place]))
    altered = token[:place] + other + token[place + 1 :]
    if altered.rpartition(".")[0] == token.rpartition(".")[0] and _bytes(altered) == _bytes(token):
        return  # the same signature, written in another way
    with pytest.raises(UntrustedError):
        lasting.trust("intelligence").require(call(altered))


def _bytes(token: str) -> bytes | None:
    text = token.rpartition(".")[2]
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None


@examples(100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=200))
def test_whatever_is_sent_is_refused_in_order(lasting: Services, text: str) -> None:
    with pytest.raises(UntrustedError):
        lasting.trust("intelligence").require(call(None).clone(headers={"Authorization": f"Bearer {text}"}))


@examples(200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(later=st.integers(-10_000, 10_000), moved=st.floats(-5_000, 5_000, allow_nan=False))
def test_a_token_is_good_for_its_time_and_no_other(lasting: Services, later: int, moved: float) -> None:
    now = int(lasting.now)
    token = signed(lasting, iat=now + later, nbf=now + later, exp=now + later + LIFE_S)
    folder = TrustSettings(service="intelligence", directory=str(lasting.root))
    core = trust_of(folder, now=lambda: lasting.now + moved)
    seen = int(lasting.now + moved) - now - later
    if seen < -LEEWAY_S:
        with pytest.raises(UntrustedError, match="not valid yet"):
            core.require(call(token))
    elif seen >= LIFE_S + LEEWAY_S:
        with pytest.raises(UntrustedError, match="expired"):
            core.require(call(token))
    else:
        assert core.require(call(token)) == "dashboard"


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "intelligence"},
        {"iss": "nobody"},
        {"iss": None},
        {"aud": None},
        {"aud": ["intelligence", "dashboard"]},
        {"exp": None},
        {"iat": None},
        {"nbf": None},
        {"jti": None},
        {"exp": 1e300},
        {"exp": "soon"},
        {"exp": True},
        {"exp": 1_800_000_000 + LIFE_S + 1},
        {"exp": 1_800_000_000 + 86_400},
        {"exp": 1_800_000_000 - 3},
        {"iat": 1_800_000_000 - 86_400},
        {"nbf": 1_800_000_000 - 86_400},
    ],
)
def test_claims_that_are_not_as_they_should_be_are_refused(services: Services, claims: dict[str, Any]) -> None:
    assert services.trust("intelligence").require(call(signed(services))) == "dashboard"
    with pytest.raises(UntrustedError):
        services.trust("intelligence").require(call(signed(services, **claims)))


@pytest.mark.parametrize("audience", ["dashboard", "", "Core", "core ", "*"])
def test_a_token_for_another_audience_is_forbidden(services: Services, audience: str) -> None:
    with pytest.raises(ForbiddenError, match="another service"):
        services.trust("intelligence").require(call(signed(services, aud=audience)))


def test_a_caller_who_is_not_meant_is_forbidden(services: Services) -> None:
    token = token_of(services.trust("stranger").headers("intelligence"))
    with pytest.raises(ForbiddenError, match="stranger may not"):
        services.trust("intelligence").require(call(token), "dashboard", "up")


def test_one_service_cannot_speak_for_another(services: Services) -> None:
    """Its own key, the other's name; and its own key under the other's key id."""
    with pytest.raises(UntrustedError, match="another issuer"):
        services.trust("intelligence").require(call(signed(services, by="stranger", iss="dashboard")))
    kid = own_key(services, "dashboard").kid
    with pytest.raises(UntrustedError):
        services.trust("intelligence").require(
            call(signed(services, by="stranger", header={"kid": kid}, iss="dashboard"))
        )


@pytest.mark.parametrize("alg", ["none", "None", "NONE", ""])
def test_an_unsigned_token_is_refused(services: Services, alg: str) -> None:
    head, body, _ = signed(services).split(".")
    unsigned = part({"alg": alg, "typ": "JWT", "kid": own_key(services, "dashboard").kid})
    for token in (f"{unsigned}.{body}.", f"{unsigned}.{body}", f"{head}.{body}."):
        with pytest.raises(UntrustedError):
            services.trust("intelligence").require(call(token))


@pytest.mark.parametrize("form", ["x", "raw", "json", "pem"])
def test_the_public_key_is_no_secret_to_sign_with(services: Services, form: str) -> None:
    jwk = own_key(services, "dashboard").public()
    raw = base64.urlsafe_b64decode(jwk.x + "=")
    secret = {
        "x": jwk.x.encode(),
        "raw": raw,
        "json": msgspec.json.encode(jwk),
        "pem": jwk.key().as_pem(private=False),
    }[form]
    body = signed(services).split(".")[1]
    for alg in ("HS256", "Ed25519"):
        head = part({"alg": alg, "typ": "JWT", "kid": jwk.kid})
        mac = hmac.new(secret, f"{head}.{body}".encode(), hashlib.sha256).digest()
        token = f"{head}.{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
        with pytest.raises(UntrustedError):
            services.trust("intelligence").require(call(token))


@pytest.mark.parametrize("kid", ["nobody", None, 7, ["x"], "../../etc/passwd", ""])
def test_an_unknown_key_is_refused(services: Services, kid: object) -> None:
    head, body, tail = signed(services).split(".")
    with pytest.raises(UntrustedError):
        services.trust("intelligence").require(call(f"{part({'alg': 'Ed25519', 'kid': kid})}.{body}.{tail}"))
    assert head


@pytest.mark.parametrize(
    "header", [{"jwk": {"kty": "oct", "k": "AA"}}, {"jku": "http://x/"}, {"crit": ["exp"]}, {"b64": False}]
)
def test_a_header_that_brings_its_own_key_or_rules_is_refused(services: Services, header: dict[str, Any]) -> None:
    jwk = own_key(services, "dashboard")
    token = signed(services).split(".")
    head = part({"alg": "Ed25519", "kid": jwk.kid, **header})
    with pytest.raises(UntrustedError):
        services.trust("intelligence").require(call(f"{head}.{token[1]}.{token[2]}"))


@pytest.mark.parametrize("size", [LONGEST + 1, 100_000, 5_000_000])
def test_a_giant_token_is_refused_before_it_is_looked_at(services: Services, size: int) -> None:
    head, body, tail = signed(services).split(".")
    for token in (
        "A" * size,
        f"{head}.{body}{'A' * size}.{tail}",
        f"{part({'kid': 'x' * size})}.{body}.{tail}",
        "." * size,
    ):
        with pytest.raises(UntrustedError, match="no service token"):
            services.trust("intelligence").require(call(token))


def test_no_token_is_in_a_log_or_in_words(services: Services, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    good = token_of(services.trust("dashboard").headers("intelligence"))
    altered = good[:-8] + "AAAAAAAA"
    core = services.trust("intelligence")
    refusals = []
    for token in (altered, signed(services, exp=1), signed(services, aud="audio"), "x" * 9_999, good.replace(".", "!")):
        with pytest.raises((UntrustedError, ForbiddenError)) as refused:
            core.require(call(token))
        refusals.append(f"{refused.value}{refused.value.__cause__}")
    seen = (
        caplog.text
        + " ".join(refusals)
        + repr(services.trust("dashboard").__dict__)
        + repr(own_key(services, "intelligence"))
    )
    for secret in (good[40:80], good[-40:-8], own_key(services, "intelligence").d):
        assert secret not in seen


# -- keys that change -------------------------------------------------------------------------------------------------


def test_after_a_rotation_old_tokens_are_good_until_they_expire(services: Services) -> None:
    dashboard, core = services.trust("dashboard"), services.trust("intelligence")
    old = token_of(dashboard.headers("intelligence"))
    assert services.directory.rotate() == sorted(NAMES)
    new = token_of(dashboard.headers("intelligence"))
    assert new != old
    assert core.require(call(old)) == core.require(call(new)) == "dashboard"
    services.now += LIFE_S + LEEWAY_S - 1
    assert core.require(call(old)) == "dashboard"
    services.now += 1
    with pytest.raises(UntrustedError, match="expired"):
        core.require(call(old))


def test_an_old_key_signs_nothing_new(services: Services) -> None:
    stolen = own_key(services, "dashboard")
    services.directory.rotate()
    services.now += GRACE_S + 1
    now = int(services.now)
    head = {"alg": "Ed25519", "typ": "JWT", "kid": stolen.kid}
    claims = {"iss": "dashboard", "aud": "intelligence", "iat": now, "nbf": now, "exp": now + LIFE_S, "jti": "1"}
    token = jwt.encode(head, claims, stolen.key(), algorithms=["Ed25519"])
    with pytest.raises(UntrustedError, match="was replaced"):
        services.trust("intelligence").require(call(token))


def test_keys_withdrawn_at_once_take_their_tokens_with_them(services: Services) -> None:
    dashboard, core = services.trust("dashboard"), services.trust("intelligence")
    old = token_of(dashboard.headers("intelligence"))
    assert core.require(call(old)) == "dashboard"
    services.directory.rotate(at_once=True)
    with pytest.raises(UntrustedError, match="nobody here knows"):
        core.require(call(old))
    assert core.require(call(token_of(dashboard.headers("intelligence")))) == "dashboard"


def test_old_keys_are_deleted_in_the_end(services: Services) -> None:
    for _ in range(3):
        services.directory.rotate()
    [file] = public_folder(services.root).glob("intelligence.jwks")
    assert len(msgspec.json.decode(file.read_bytes(), type=Jwks).keys) == 4
    services.now += KEEP_S + 1
    services.directory.ensure(NAMES)
    assert len(msgspec.json.decode(file.read_bytes(), type=Jwks).keys) == 1


async def test_a_long_connection_ends_when_its_key_is_withdrawn(services: Services) -> None:
    dashboard, core = services.trust("dashboard"), services.trust("intelligence")
    grant = core.grant(call(token_of(dashboard.headers("intelligence"))), "dashboard")
    services.now += 86_400
    assert core.holds(grant)  # its token is long over; its key is not
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(core.ended(grant, look_every_s=0.0))
        services.directory.rotate()
        await asyncio.sleep(0)
        assert core.holds(grant)
        services.now += GRACE_S + LIFE_S + LEEWAY_S + 1
        async with asyncio.timeout(20):
            await watching
    again = core.grant(call(token_of(dashboard.headers("intelligence"))), "dashboard")
    assert core.holds(again)
    services.directory.rotate(at_once=True)
    assert not core.holds(again)


def test_a_rotation_cut_off_anywhere_leaves_nothing_that_does_not_work(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CutOffError(BaseException):
        """The process is no more."""

    replace, left = os.replace, 0

    def cut(source: Path, target: Path) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise CutOffError
        replace(source, target)

    dashboard, core = services.trust("dashboard"), services.trust("intelligence")
    monkeypatch.setattr(os, "replace", cut)
    for number in range(1, 20):
        left = number
        try:
            services.directory.rotate()
        except CutOffError:
            services.now += 300
            assert core.require(call(token_of(dashboard.headers("intelligence")))) == "dashboard"
            services.directory.ensure(NAMES)
            assert core.require(call(token_of(dashboard.headers("intelligence")))) == "dashboard"
        else:
            break
    assert number > len(NAMES)


def test_keys_stay_when_everything_is_started_again(services: Services) -> None:
    before = {name: own_key(services, name).kid for name in NAMES}
    services.directory.ensure(NAMES)
    assert {name: own_key(services, name).kid for name in NAMES} == before


def test_who_is_gone_has_no_key(services: Services) -> None:
    token = token_of(services.trust("stranger").headers("intelligence"))
    services.directory.ensure(["intelligence", "dashboard"])
    with pytest.raises(UntrustedError, match="nobody here knows"):
        services.trust("intelligence").require(call(token))
    assert not private_file(services.root, "stranger").exists()


def test_a_damaged_key_is_made_anew_and_a_damaged_file_withdraws_nothing(services: Services) -> None:
    core, dashboard = services.trust("intelligence"), services.trust("dashboard")
    token = token_of(dashboard.headers("intelligence"))
    assert core.require(call(token)) == "dashboard"
    (public_folder(services.root) / "dashboard.jwks").write_text("{")
    private_file(services.root, "dashboard").write_text("{")
    assert core.require(call(token)) == "dashboard"
    assert token_of(dashboard.headers("intelligence")) == token
    services.directory.ensure(NAMES)
    assert core.require(call(token_of(dashboard.headers("intelligence")))) == "dashboard"


def test_keys_are_for_this_user_alone(services: Services) -> None:
    for path in services.root.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_a_file_speaks_only_for_the_service_it_is_named_after(services: Services) -> None:
    """Where machines hand in their own public files, one must not speak for another."""
    mine = generate("dashboard")
    public = Jwks(keys=(mine.public(),))
    (public_folder(services.root) / "stranger.jwks").write_bytes(msgspec.json.encode(public))
    now = int(services.now)
    claims = {"iss": "dashboard", "aud": "intelligence", "iat": now, "nbf": now, "exp": now + LIFE_S, "jti": "1"}
    head = {"alg": "Ed25519", "typ": "JWT", "kid": mine.kid}
    forged = jwt.encode(head, claims, mine.key(), algorithms=["Ed25519"])
    with pytest.raises(UntrustedError, match="nobody here knows"):
        services.trust("intelligence").require(call(forged))


# -- other ways to give keys ------------------------------------------------------------------------------------------


def _as_files(folder: Path, private: PrivateJwk, public: Jwks) -> tuple[str, str]:
    (folder / "own.jwk").write_bytes(msgspec.json.encode(private))
    (folder / "all.jwks").write_bytes(msgspec.json.encode(public))
    return str(folder / "own.jwk"), str(folder / "all.jwks")


def _inline(_folder: Path, private: PrivateJwk, public: Jwks) -> tuple[str, str]:
    return msgspec.json.encode(private).decode(), msgspec.json.encode(public).decode()


@pytest.mark.parametrize("form", [_as_files, _inline])
def test_keys_as_settings(tmp_path: Path, form: Callable[[Path, PrivateJwk, Jwks], tuple[str, str]]) -> None:
    mine, theirs = generate("intelligence"), generate("dashboard")
    public = Jwks(keys=(mine.public(), theirs.public()))

    def trust(jwk: PrivateJwk) -> ServiceTrust:
        private_key, public_keys = form(tmp_path, jwk, public)
        return trust_of(TrustSettings(service=jwk.service, private_key=private_key, public_keys=public_keys))

    headers = trust(theirs).headers("intelligence")
    assert trust(mine).require(call(token_of(headers))) == "dashboard"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"service": "intelligence"},
        {"service": "intelligence", "private_key": "{}", "public_keys": '{"keys":[]}'},
        {"service": "intelligence", "directory": "/nowhere"},
        {"service": "intelligence", "private_key": "{", "public_keys": '{"keys":[{"kty":"oct"}]}'},
    ],
)
def test_settings_that_cannot_work_are_said_at_the_start(given: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        trust_of(TrustSettings(**given))


def test_the_key_of_another_service_is_noticed(services: Services) -> None:
    settings = TrustSettings(
        service="intelligence",
        private_key=str(private_file(services.root, "dashboard")),
        public_keys=str(public_folder(services.root)),
    )
    with pytest.raises(ConfigurationError, match="another service"):
        trust_of(settings)


def test_no_key_is_shown_where_settings_are(services: Services) -> None:
    secret = own_key(services, "intelligence")
    settings = TrustSettings(service="intelligence", private_key=msgspec.json.encode(secret).decode())
    assert secret.d not in repr(settings)


@pytest.mark.parametrize("name", ["", "Core", "a b", "../x", "1x", "x" * 41])
def test_a_name_that_is_none_gets_no_key(name: str) -> None:
    with pytest.raises(ConfigurationError):
        generate(name)


def test_a_key_that_is_no_point_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        PublicJwk(kty="OKP", crv="Ed25519", x="AAAA", kid="k", service="intelligence").key()


def test_keys_for_services_that_nobody_starts_for_us(tmp_path: Path) -> None:
    for name in ("intelligence", "dashboard", "intelligence"):
        done = CliRunner().invoke(trust_group, ["keygen", name, "--out", str(tmp_path)])
        assert done.exit_code == 0
        assert done.output.splitlines()[0] == str(private_file(tmp_path, name))
    core, dashboard = (
        trust_of(TrustSettings(service=name, directory=str(tmp_path))) for name in ("intelligence", "dashboard")
    )
    assert core.require(call(token_of(dashboard.headers("intelligence")))) == "dashboard"
    assert dashboard.require(call(token_of(core.headers("dashboard")))) == "intelligence"
    for name in ("../core", "nosuch"):
        refused = CliRunner().invoke(trust_group, ["keygen", name, "--out", str(tmp_path)])
        assert isinstance(refused.exception, ConfigurationError)
        assert "intelligence" in str(refused.exception)


# -- the gate before everything internal ------------------------------------------------------------------------------


def test_internal_routes_without_a_gate_are_refused() -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response()

    with pytest.raises(ValueError, match="/internal/v1/usage"):
        create_app([web.get("/internal/v1/usage", handle)])


async def test_a_handler_that_forgets_to_ask_is_guarded_all_the_same(services: Services) -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(text="secret")

    routes = [web.get("/internal/v1/usage", handle), web.get("/v1/usage", handle)]
    async with TestClient(TestServer(create_app(routes, services.trust("intelligence")))) as client:
        for path in ("/internal/v1/usage", "/internal/v1/none", "/internal", "/%69nternal/v1/usage"):
            answer = await client.get(path)
            assert answer.status == 401, path
            assert (await answer.json())["code"] == "trust.refused"
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert (await client.get("/v1/usage")).status == 200
        headers = services.trust("dashboard").headers("intelligence")
        assert await (await client.get("/internal/v1/usage", headers=headers)).text() == "secret"
        assert (await client.get("/internal/v1/none", headers=headers)).status == 404
        wrong = services.trust("dashboard").headers("dashboard")
        assert (await client.get("/internal/v1/usage", headers=wrong)).status == 403
