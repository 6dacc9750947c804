"""Modules that are not built: their process has the same routes for them as once they are built."""

from collections.abc import Iterable
from pathlib import Path
from typing import cast

from aiohttp import web
from tests.support.dashboard_site import running as dashboard_site
from tests.support.hearing import ScriptedEngine

from quickcomm.apps import MODULES, MONOLITH
from quickcomm.audio import assembly as audio
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.audio.module import Audio
from quickcomm.contracts.routes import ModuleRoute, Routes
from quickcomm.dashboard import assembly as dashboard
from quickcomm.intelligence import assembly as intelligence
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.emergencies import EmergencyRules
from quickcomm.kernel.keys import Authenticator
from quickcomm.kernel.messaging import Messaging
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.runtime.app import asleep_in
from quickcomm.kernel.site_pack import load_pack
from quickcomm.kernel.storage import Database
from quickcomm.operate.settings import load_settings


def places(routes: Iterable[web.AbstractRouteDef]) -> list[tuple[str, str, object]]:
    return [(route.method, route.path, route.kwargs) for route in cast("Iterable[web.RouteDef]", routes)]


async def test_of_audio(tmp_path: Path) -> None:
    clock, database = SystemClock(), Database(tmp_path / "site.sqlite")
    database.open()
    built = Audio(
        settings=AudioSettings(),
        database=database,
        messaging=Messaging.over(SqlBus(database, clock), clock),
        clock=clock,
        engine=ScriptedEngine(),
        keys=cast("Authenticator", None),
        emergencies=EmergencyRules(load_pack().emergency),
    )
    assert places(audio.doors()) == places(built.part().routes)
    assert places(audio.doors())
    await built.aclose()
    await database.aclose()


async def test_of_a_dashboard(tmp_path: Path) -> None:
    async with dashboard_site(tmp_path) as site:
        assert places(dashboard.doors()) == places(site.dashboard.part().routes)


def test_of_intelligence() -> None:
    assert intelligence.doors() == ()


def test_what_is_not_built_goes_by_the_routes_and_only_in_a_monolith_of_several(tmp_path: Path) -> None:
    routes = Routes(version=3, modules={"audio": ModuleRoute(mode="retired"), "dashboard": ModuleRoute(mode="full")})
    for side, asleep in (("monolith", {"audio"}), ("service", set()), ("", set())):
        settings = load_settings(tmp_path, {}, {"QUICKCOMM_INSTANCE_SIDE": side})
        assert asleep_in(MONOLITH, settings, routes) == asleep
        assert asleep_in(MONOLITH, settings, Routes()) == frozenset(), "an empty store, and no file"
    assert {module.name for module in MODULES} == {"audio", "intelligence", "dashboard"}
