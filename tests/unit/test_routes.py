"""Routes: a rising weight takes ids to the service, none back; ids with a side of their own keep it."""

import msgspec
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from quickcomm import apps
from quickcomm.contracts.identity import BUCKETS, bucket
from quickcomm.contracts.routes import MONOLITH, SERVICE, UNAWAITED, Mode, ModuleRoute, Routes, client_bucket
from quickcomm.traffic.model.ladder import LADDER, MODULES, Stage, route_of

weights = st.integers(0, BUCKETS)
ids = st.text(min_size=1, max_size=20)
overrides = st.dictionaries(ids, st.sampled_from([MONOLITH, SERVICE]), max_size=4)


@given(weights, weights, st.integers(0, BUCKETS - 1), ids, overrides)
def test_no_id_moves_the_wrong_way(one: int, other: int, at: int, name: str, own: dict[str, str]) -> None:
    low, high = sorted((one, other))
    before = msgspec.convert({"weight": low, "overrides": own}, ModuleRoute)
    after = msgspec.structs.replace(before, weight=high)
    assert (before.side(at, name), after.side(at, name)) != (SERVICE, MONOLITH)
    if name in own:
        assert before.side(at, name) == after.side(at, name) == own[name]


@given(weights, weights, ids, ids, ids, overrides, overrides, overrides)
def test_no_conversation_moves_the_wrong_way_whatever_has_a_side_of_its_own(
    one: int,
    other: int,
    name: str,
    channel: str,
    site: str,
    by_name: dict[str, str],
    by_channel: dict[str, str],
    by_site: dict[str, str],
) -> None:
    low, high = sorted((one, other))
    own = {"overrides": by_name, "channels": by_channel, "sites": by_site}
    sides = [
        Routes(version=1, modules={"intelligence": msgspec.convert({"weight": weight, **own}, ModuleRoute)}).side(
            "intelligence", name, channel=channel, site=site
        )
        for weight in (low, high)
    ]
    assert sides != [SERVICE, MONOLITH]


@given(ids, overrides)
def test_all_stages_forward_take_an_id_over_once_and_back_the_same_way(name: str, own: dict[str, str]) -> None:
    """An id with a side of its own has it while both sides serve."""
    at = bucket("dashboard", name)
    route = msgspec.convert({"overrides": own}, ModuleRoute)
    sides = []
    for stage in LADDER:
        route = msgspec.structs.replace(route_of(stage, route), overrides=route.overrides)
        shown = route_of(stage, route)
        sides.append(shown.side(at, name))
        assert name not in own or stage.mode not in {"canary", "full"} or sides[-1] == own[name]
    assert (sides[0], sides[1], sides[-1]) == (MONOLITH, MONOLITH, SERVICE)
    if name not in own:
        assert sides == sorted(sides)


def test_the_narrower_override_counts_and_an_older_reader_goes_by_the_bucket() -> None:
    route = ModuleRoute(
        overrides={"c": MONOLITH}, channels={"desk": SERVICE, "pool": MONOLITH}, sites={"east": SERVICE}
    )
    routes = Routes(version=1, modules={"intelligence": route})
    said = [
        ("c", "desk", "east"),
        ("d", "desk", "west"),
        ("d", "pool", "east"),
        ("d", "bar", "east"),
        ("d", "bar", "west"),
    ]
    sides = [routes.side("intelligence", name, channel=channel, site=site) for name, channel, site in said]
    assert sides == [MONOLITH, SERVICE, MONOLITH, SERVICE, MONOLITH]
    assert routes.side("intelligence", "d") == MONOLITH
    assert msgspec.json.decode(msgspec.json.encode(routes), type=Routes) == routes


@pytest.mark.parametrize("kept", ["overrides", "channels", "sites"])
def test_nothing_leaves_a_side_that_is_to_keep_something(kept: str) -> None:
    whole = ModuleRoute(mode="full", weight=BUCKETS, decides=SERVICE)
    assert whole.leaves(MONOLITH)
    assert not msgspec.structs.replace(whole, **{kept: {"x": MONOLITH}}).leaves(MONOLITH)
    assert msgspec.structs.replace(whole, **{kept: {"x": SERVICE}}).leaves(MONOLITH)


@given(ids, weights)
def test_routes_ask_for_the_bucket_of_a_conversation(name: str, weight: int) -> None:
    routes = Routes(version=1, modules={"audio": ModuleRoute(weight=weight)})
    assert (routes.side("audio", name) == SERVICE) == (bucket("audio", name) < weight)
    assert routes.side("dashboard", name) == MONOLITH


@given(ids)
def test_a_client_has_the_bucket_that_the_edge_hashes(credential: str) -> None:
    assert client_bucket(credential) == xxhash.xxh64(credential.encode(), seed=0).intdigest() % BUCKETS


@pytest.mark.parametrize("stage", LADDER)
def test_a_share_of_the_ids_is_the_weight(stage: Stage) -> None:
    route = route_of(stage, ModuleRoute())
    assert sum(route.side(at) == SERVICE for at in range(BUCKETS)) == route.weight


def test_every_module_of_the_monolith_can_be_moved() -> None:
    assert set(MODULES) == {module.name for module in apps.MODULES}


@pytest.mark.parametrize(
    ("mode", "awaited"), [("off", False), ("shadow", False), ("canary", True), ("full", True), ("retired", True)]
)
def test_a_service_is_waited_for_from_its_first_conversation_on(mode: Mode, *, awaited: bool) -> None:
    [module] = [module for app in apps.APPS.values() for module in app.modules if module.name in UNAWAITED][:1]
    own = tuple(f"{group.name}@service" for group in module.consumes if not group.shared)
    routes = Routes(version=1, modules={"intelligence": ModuleRoute(mode=mode)})
    assert routes.unawaited == (() if awaited else own)
    for serves in (ModuleRoute(mode=mode, weight=1), ModuleRoute(mode=mode, overrides={"c": SERVICE})):
        assert Routes(version=1, modules={"intelligence": serves}).unawaited == ()
