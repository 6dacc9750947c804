"""Every route between services, as the applications have them: nobody but the one who is meant gets in."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, cast

import msgspec
import pytest
from aiohttp import hdrs, web
from aiohttp.test_utils import TestClient, TestServer
from tests.support.hearing import ScriptedEngine
from tests.support.home import mark
from tests.support.services import NAMES
from tests.support.valkey import Valkey

from quickcomm.apps import APPS
from quickcomm.contracts.link import LINK
from quickcomm.intelligence.assembly import Engines
from quickcomm.intelligence.module import Classifier
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.http import create_app
from quickcomm.kernel.keys.redis import RedisKeys
from quickcomm.kernel.messaging.bus.redis_names import PREFIX
from quickcomm.kernel.runtime.app import assemble
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.runtime.process import Process
from quickcomm.kernel.runtime.settings import Settings
from quickcomm.kernel.settings import InstanceSettings, TrustSettings
from quickcomm.kernel.site_pack import load_pack
from quickcomm.kernel.trust import trust_of
from quickcomm.kernel.trust.directory import TrustDirectory

Client = TestClient[web.Request, web.Application]


class Asked:
    """The service's own application, without anything behind it: nobody shall get as far as that."""

    def __init__(self, client: Client, services: TrustDirectory, root: Path, service: str, key: str) -> None:
        self.client = client
        self.services = services
        self.root = root
        self.service = service
        self.key = key

    def internal(self) -> list[tuple[str, str]]:
        """Method and path of every route below /internal, from the application's table."""
        assert self.client.app is not None
        found = []
        for route in self.client.app.router.routes():
            path = route.resource.canonical if route.resource is not None else ""
            if path.startswith("/internal"):
                found.append((route.method, path.replace("{", "").replace("}", "")))
        return found

    def headers(self, caller: str, audience: str | None = None) -> dict[str, str]:
        trust = trust_of(TrustSettings(service=caller, directory=str(self.root)))
        return trust.headers(audience or self.service)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a service is made."""

    root: Path
    redis_url: str
    trust: TrustSettings
    instance: InstanceSettings

    @property
    def directory(self) -> DataDirectory:
        return DataDirectory(self.root / "data")


def made(name: str, place: Place) -> Process:
    settings = Settings(redis_url=place.redis_url, trust=place.trust, instance=place.instance)
    process, _ = assemble(APPS[name], settings, place.directory, load_pack(), {name: LOADED[name]()})
    return process


class NotAsked:
    """A classifier whose name is known, and no more."""

    model = "none"


LOADED: Final[Mapping[str, Callable[[], object]]] = {
    "intelligence": lambda: Engines(classifier=cast("Classifier", NotAsked())),
    "audio": ScriptedEngine,
}


@pytest.fixture(params=list(LOADED))
async def asked(request: pytest.FixtureRequest, valkey: Valkey, tmp_path: Path) -> AsyncIterator[Asked]:
    name: str = request.param
    services = TrustDirectory(tmp_path / "trust")
    services.ensure(sorted({*NAMES, *LOADED}))
    trust = TrustSettings(service=name, directory=str(tmp_path / "trust"))
    instance = InstanceSettings(name=f"{name}-1", socket=str(tmp_path / "i.sock"), registry=str(tmp_path / "instances"))
    place = Place(root=tmp_path, redis_url=valkey.url, trust=trust, instance=instance)
    place.directory.create()
    service = made(name, place)
    keys = RedisKeys(valkey.url, SystemClock(), prefix=PREFIX)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(service.aclose)
        stack.push_async_callback(keys.aclose)
        key = (await keys.create("admin")).key
        await mark(valkey.url)
        app = create_app(service.routes(), trust_of(trust))
        client = await stack.enter_async_context(TestClient(TestServer(app)))
        yield Asked(client, services, tmp_path / "trust", name, key)


async def test_there_are_such_routes(asked: Asked) -> None:
    """So that the tests below are about something."""
    assert (hdrs.METH_GET, LINK) in asked.internal()
    assert len(asked.internal()) >= {"intelligence": 4, "audio": 1}[asked.service]


def _strangers(asked: Asked) -> Iterator[tuple[str, dict[str, str], int]]:
    yield "without a token", {}, 401
    yield "with an API key", {"Authorization": f"Bearer {asked.key}"}, 401
    yield "with the cookie of a page", {"Cookie": "quickcomm_session=x"}, 401
    yield "with a token for another audience", asked.headers("dashboard", "dashboard"), 403
    yield "of a service that has nothing to do here", asked.headers("stranger"), 403
    if asked.service != "audio":  # its instances hear how much the other ones can take, while audio moves
        yield "of the service itself", asked.headers(asked.service), 403


async def test_nobody_else_gets_in(asked: Asked) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "A" * 22 + "==",
    }
    for method, path in asked.internal():
        for who, headers, status in _strangers(asked):
            for more in ({}, upgrade):
                async with asked.client.request(method, path, headers={**headers, **more}) as answer:
                    assert answer.status == status, (method, path, who)
                    assert answer.content_type == "application/problem+json"
            async with asked.client.request(
                method, f"{path}?key={asked.key}", headers={**headers, **upgrade}
            ) as answer:
                assert answer.status == status, (method, path, who)


async def test_who_was_let_in_is_out_once_its_key_is_withdrawn(asked: Asked) -> None:
    headers = asked.headers("dashboard")
    async with asked.client.ws_connect(LINK, headers=headers):
        pass
    asked.services.rotate(at_once=True)
    async with asked.client.get(LINK, headers=headers) as answer:
        assert answer.status == 401
    async with asked.client.ws_connect(LINK, headers=asked.headers("dashboard")):
        pass


async def test_a_service_token_opens_nothing_that_is_for_people(asked: Asked) -> None:
    """A token of a service is no key."""
    for path in ("/metrics", *(["/v1/conversations/c-1/audio"] if asked.service == "audio" else [])):
        async with asked.client.get(path, headers=asked.headers("dashboard")) as answer:
            assert answer.status == 401, path
