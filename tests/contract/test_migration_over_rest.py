"""A migration over REST: asked of a controller that may not run, and steered by administrators alone."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.dashboard_site import Site, running

from quickcomm.contracts.migration import (
    GetMigration,
    KillMigration,
    MigrationDone,
    MigrationStatus,
    ModuleMigration,
    OverrideMigration,
    RollBackMigration,
    StepMigration,
    WeighMigration,
)
from quickcomm.dashboard.service.moving import Migration
from quickcomm.kernel.errors import ConflictError
from quickcomm.kernel.messaging.rpc.port import DeadlineError

STEP: Final = "/v1/migration/dashboard/step"


Change = StepMigration | RollBackMigration | WeighMigration | OverrideMigration


class GateError(ConflictError):
    code = "migration.gate"


class FakeController:
    """Refuses each step that is not forced."""

    def __init__(self) -> None:
        self.asked: list[Change] = []
        self.killed: list[KillMigration] = []

    async def status(self, _request: GetMigration) -> MigrationStatus:
        module = ModuleMigration(name="dashboard", mode="shadow", goal="service")
        return MigrationStatus(version=1, epoch=1, in_force=True, modules=(module,), followers={"edge": 1})

    async def step(self, request: StepMigration) -> MigrationDone:
        if not request.force:
            raise GateError("The gate has not passed yet.")
        return self._done(request)

    async def change(self, request: Change) -> MigrationDone:
        return self._done(request)

    def _done(self, request: Change) -> MigrationDone:
        self.asked.append(request)
        notes = ("skipped: canary 1 %",)
        return MigrationDone(name=request.name, mode="shadow", weight=0, decides="monolith", version=1, notes=notes)

    async def kill(self, request: KillMigration) -> list[MigrationDone]:
        self.killed.append(request)
        return []


@pytest.fixture
def controller() -> FakeController:
    return FakeController()


@pytest.fixture
async def moving(tmp_path: Path, controller: FakeController) -> AsyncIterator[Site]:
    answers: list[Any] = [
        (GetMigration, controller.status),
        (StepMigration, controller.step),
        (RollBackMigration, controller.change),
        (WeighMigration, controller.change),
        (OverrideMigration, controller.change),
        (KillMigration, controller.kill),
    ]
    async with running(tmp_path, answers=answers) as site:
        yield site


async def test_without_a_controller_nothing_moves_and_asking_is_no_error(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        assert (await site.get("/v1/migration"))["modules"] == []
        assert (await site.post(STEP, body={}, expect=404))["code"] == "migration.none"


async def test_a_gate_refuses_and_is_gone_on_in_spite_of(moving: Site, controller: FakeController) -> None:
    assert (await moving.post(STEP, body={}, expect=409))["code"] == "migration.gate"
    after = await moving.post(STEP, body={"force": True})
    assert after["modules"][0]["mode"] == "shadow"
    assert after["notes"] == ["skipped: canary 1 %"]
    assert (await moving.get("/v1/migration"))["notes"] == []
    await moving.post("/v1/migration/dashboard/rollback", body={"why": "pages were slow"})
    assert controller.asked == [
        StepMigration(name="dashboard", by="the admin", force=True),
        RollBackMigration(name="dashboard", by="the admin", why="pages were slow"),
    ]


async def test_shares_and_overrides_by_hand(moving: Site, controller: FakeController) -> None:
    weight, override = "/v1/migration/dashboard/weight", "/v1/migration/intelligence/override"
    await moving.post(weight, body={"percent": 12.5, "why": "quiet", "force": True})
    await moving.post(override, body={"kind": "channel", "of": "desk", "side": "service", "why": "loud"})
    await moving.post(override, body={"kind": "channel", "of": "desk", "side": None})
    for path, body in (
        (weight, {"percent": 0}),
        (weight, {"percent": 100}),
        (override, {"kind": "department", "of": "desk", "side": "service"}),
        (override, {"kind": "channel", "of": "", "side": "service"}),
        (override, {"kind": "channel", "of": "desk"}),
    ):
        await moving.post(path, body=body, expect=400)
    await moving.post(weight, "read", body={"percent": 5}, expect=403)
    await moving.post(override, "read", body={"kind": "site", "of": "x", "side": None}, expect=403)
    assert controller.asked == [
        WeighMigration(name="dashboard", by="the admin", weight=1_250, why="quiet", force=True),
        OverrideMigration(name="intelligence", by="the admin", kind="channel", of="desk", side="service", why="loud"),
        OverrideMigration(name="intelligence", by="the admin", kind="channel", of="desk", side=None),
    ]


async def test_a_reader_looks_and_moves_nothing(moving: Site, controller: FakeController) -> None:
    assert (await moving.get("/v1/migration"))["modules"][0]["name"] == "dashboard"
    await moving.post(STEP, "read", body={"force": True}, expect=403)
    await moving.post("/v1/migration/dashboard/dance", body={}, expect=400)
    assert controller.asked == []


async def test_the_kill_switch_is_for_one_or_for_all(moving: Site, controller: FakeController) -> None:
    await moving.post("/v1/migration/all/kill", body={"why": "smoke"})
    await moving.post("/v1/migration/dashboard/kill", body={})
    assert controller.killed == [
        KillMigration(name=None, by="the admin", why="smoke"),
        KillMigration(name="dashboard", by="the admin"),
    ]


async def test_an_administrator_of_another_site_of_the_server_looks_and_moves_nothing(
    moving: Site, controller: FakeController
) -> None:
    moving.tokens["tenant"] = (await moving.keys.create("admin", "a tenant", site="hotel-b")).key
    assert (await moving.get("/v1/migration", role="tenant"))["modules"][0]["name"] == "dashboard"
    for path in (STEP, "/v1/migration/dashboard/rollback", "/v1/migration/all/kill"):
        refused = await moving.post(path, "tenant", body={"force": True}, expect=403)
        assert "an admin key of the site 'main'; yours is of 'hotel-b'" in refused["detail"]
    await moving.post("/v1/migration/dashboard/weight", "tenant", body={"percent": 5}, expect=403)
    override = {"kind": "site", "of": "hotel-b", "side": "service"}
    await moving.post("/v1/migration/intelligence/override", "tenant", body=override, expect=403)
    assert (controller.asked, controller.killed) == ([], [])


async def test_a_controller_that_is_late_is_not_taken_for_none() -> None:
    class Late:
        async def call(self, request: GetMigration) -> Any:
            raise DeadlineError(request)

    with pytest.raises(DeadlineError):
        await Migration(Late()).status()  # type: ignore[arg-type]
