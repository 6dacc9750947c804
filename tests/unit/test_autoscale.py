"""`up --autoscale`: what is not known changes nothing, bounds hold, one change at a time, failures are tried later."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from tests.support.examples import examples

from quickcomm.capacity.model.scaling import READ_EVERY_S, ScalingPolicy
from quickcomm.cli.main import main
from quickcomm.contracts.checking import Waiting
from quickcomm.contracts.commands import Command, GetStatus, ShareOut
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.intelligence.declaration import GROUP
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.runtime.admin_socket import Rows, UnknownCommandError
from quickcomm.operate.up.autoscale import AGAIN_S, Allowed, Autoscaler, Least, policy_of
from quickcomm.operate.up.loads import AudioLoad, Meter, excess
from quickcomm.topology.model.settings import AutoscaleSettings
from quickcomm.topology.module import Keeper, NotReadyError

CALM_S: Final = ScalingPolicy().calm_s
ALLOWED: Final = {"audio": Allowed(first=1, most=64), "intelligence": Allowed(first=1, most=8)}


class House:
    """Processes, the store and the clock in one. A new process of audio has no talkers until it is given some."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.names = {"audio": ["audio-1"], "intelligence": ["intelligence-1"]}
        self.states: dict[str, str] = {}
        self.loads = {"audio-1": AudioLoad(talkers=4, stt_workers=1, stt_backlog_s=0.0)}
        self.mute: set[str] = set()
        self.lag = (0.0, 0)
        self.changing = False
        self.scaled: list[tuple[str, int]] = []
        self.shared: list[tuple[str, int]] = []
        self.fails = False
        self.shares = True
        self.asked: Callable[[], None] = lambda: None

    @property
    def keepers(self) -> Sequence[Keeper]:
        return [
            cast("Keeper", SimpleNamespace(module=module, name=name, state=self.states.get(name, "ready")))
            for module, names in self.names.items()
            for name in names
        ]

    async def scale(self, name: str, replicas: int) -> None:
        self.scaled.append((name, replicas))
        if self.fails:
            raise NotReadyError("It is not ready.")
        self.names[name] = [f"{name}-{number}" for number in range(1, replicas + 1)]

    async def ask(self, name: str, command: Command, _within_s: float) -> Rows:
        if name in self.mute:
            raise ConnectionRefusedError(f"{name} does not answer.")
        self.asked()
        if isinstance(command, ShareOut):
            if not self.shares:
                raise UnknownCommandError("There is no such command.")
            self.shared.append((name, command.conversations))
            return [{"given_up": command.conversations}]
        assert isinstance(command, GetStatus)
        load = self.loads.get(name, AudioLoad(talkers=0, stt_workers=1, stt_backlog_s=0.0))
        return [{"module": "audio", "sessions": 1, "alarms": [], **msgspec.to_builtins(load)}]

    async def waiting(self) -> list[Waiting]:
        age_s, count = self.lag
        oldest_ns = self.clock.now_ns() - int(age_s * 1e9)
        ours = Waiting(stream=TRANSCRIPTS, group=GROUP, count=count, oldest_ns=oldest_ns)
        other = Waiting(stream=TRANSCRIPTS, group="dashboard", count=900, oldest_ns=0)
        return [other, ours] if count else [other]

    def has(self, talkers: int = 0, name: str = "audio-1", **more: Any) -> None:
        values: dict[str, Any] = {"talkers": talkers, "stt_workers": 1, "stt_backlog_s": 0.0, **more}
        self.loads[name] = AudioLoad(**values)


@pytest.fixture
def house() -> House:
    return House()


def scaler(house: House, path: Path, *, cores: int = 8, model_s: float = 0.0, **settings: Any) -> Autoscaler:
    return Autoscaler(
        house,
        Meter(lambda: house.keepers, house.ask, house.waiting, house.clock, model_s=model_s),
        house.ask,
        house.clock,
        settings=AutoscaleSettings(**settings),
        allowed=ALLOWED,
        least=Least(path / "least.json"),
        cores=cores,
    )


async def look(house: House, autoscaler: Autoscaler, times: int = 1) -> None:
    for _ in range(times):
        house.clock.advance(READ_EVERY_S)
        await autoscaler.look()


# -- up and down ------------------------------------------------------------------------------------------------------


async def test_a_burst_gets_a_process_and_the_process_its_share_of_the_talkers(house: House, tmp_path: Path) -> None:
    autoscaler = scaler(house, tmp_path)
    house.has(30)
    with capture_logs() as said:
        await look(house, autoscaler)
    assert house.scaled == [("audio", 2)]
    assert house.shared == [("audio-1", 15)]
    [event] = [each for each in said if each["event"] == "autoscale.scaled"]
    assert (event["before"], event["processes"]) == (1, 2)
    assert "30 talkers" in event["why"]
    assert autoscaler.row()["audio"]["wanted"] == 2
    assert REGISTRY.get_sample_value("quickcomm_processes_wanted", {"module": "audio"}) == 2


async def test_it_goes_down_after_a_calm_while_but_not_below_what_the_site_began_with(
    house: House, tmp_path: Path
) -> None:
    autoscaler = scaler(house, tmp_path)
    house.has(30)
    await look(house, autoscaler)
    house.has(3)
    await look(house, autoscaler, int(2 * CALM_S / READ_EVERY_S))
    await look(house, autoscaler, int(2 * CALM_S / READ_EVERY_S))
    assert house.scaled == [("audio", 2), ("audio", 1)]


async def test_a_process_with_calls_that_cannot_resume_is_not_stopped(house: House, tmp_path: Path) -> None:
    autoscaler = scaler(house, tmp_path)
    house.has(30)
    await look(house, autoscaler)
    house.has(3)
    house.has(0, "audio-2", cannot_resume=2)
    await look(house, autoscaler, int(3 * CALM_S / READ_EVERY_S))
    assert house.scaled == [("audio", 2)]
    assert autoscaler.row()["audio"]["why"] == "2 conversations that cannot resume are waited for"
    house.has(0, "audio-2")
    await look(house, autoscaler)
    assert house.scaled == [("audio", 2), ("audio", 1)]


async def test_one_change_at_a_time(house: House, tmp_path: Path) -> None:
    autoscaler = scaler(house, tmp_path)
    house.has(30)
    house.lag = (9.0, 50)
    await look(house, autoscaler)
    assert house.scaled == [("audio", 2)]
    await look(house, autoscaler)
    assert house.scaled == [("audio", 2), ("intelligence", 2)]


async def test_what_the_language_model_may_take_is_no_lag(house: House, tmp_path: Path) -> None:
    patient = scaler(house, tmp_path, model_s=3.0)
    house.lag = (4.0, 50)
    await look(house, patient)
    assert house.scaled == []
    house.lag = (6.0, 50)
    await look(house, patient)
    assert house.scaled == [("intelligence", 2)]


async def test_who_is_behind_gives_away_talkers_where_no_more_processes_are_allowed(
    house: House, tmp_path: Path
) -> None:
    """A process that was killed is back, and all talkers are with the other one."""
    autoscaler = scaler(house, tmp_path, audio_most=2)
    house.names["audio"] = ["audio-1", "audio-2"]
    house.has(20, stt_backlog_s=10.0)
    await look(house, autoscaler)
    assert house.shared == [], "it is not behind"
    house.has(20, stt_backlog_s=50.0)
    await look(house, autoscaler, 2)
    assert house.shared == [("audio-1", 10)], "and has some time before it is asked again"


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_by_default_decode_workers_have_a_core_each(tmp_path: Path) -> None:
    least = Least(tmp_path / "least.json")

    def most(workers: int, cores: int, **settings: Any) -> tuple[int, int]:
        policy = policy_of(AutoscaleSettings(**settings), ALLOWED, least, workers, cores)
        return policy.audio.most, policy.intelligence.most

    assert most(1, 2) == (2, 2)
    assert most(2, 2) == (1, 2)
    assert most(2, 64) == (32, 8), "intelligence can have no more than it has partitions"
    assert most(2, 2, audio_most=5, intelligence_most=3) == (5, 3)


def test_the_default_number_of_talkers_is_that_of_the_policy() -> None:
    assert AutoscaleSettings().talkers == ScalingPolicy().audio.talkers


async def test_more_than_the_settings_allow_are_never_started(house: House, tmp_path: Path) -> None:
    autoscaler = scaler(house, tmp_path, audio_most=3)
    house.has(90, stt_backlog_s=900.0)
    await look(house, autoscaler, 50)
    assert house.scaled == [("audio", 3)]
    assert autoscaler.row()["audio"]["why"] == "no more are allowed"


async def test_decode_workers_bear_talkers_each(house: House, tmp_path: Path) -> None:
    autoscaler = scaler(house, tmp_path)
    house.has(30, stt_workers=2)
    await look(house, autoscaler)
    assert house.scaled == []


async def test_what_an_operator_asked_for_is_the_least_also_for_another_up(house: House, tmp_path: Path) -> None:
    before = scaler(house, tmp_path)
    await house.scale("audio", 3)
    before.asked_for("audio", 3)
    before.asked_for("dashboard", 2)
    after = scaler(house, tmp_path, audio_most=2)
    house.has(0)
    await look(house, after, int(4 * CALM_S / READ_EVERY_S))
    assert house.scaled == [("audio", 3)]
    assert (after.row()["audio"]["least"], after.row()["audio"]["most"]) == (3, 3)


# -- what goes wrong --------------------------------------------------------------------------------------------------


def loading(house: House) -> None:
    house.states["audio-1"] = "starting"


def silent(house: House) -> None:
    house.mute.add("audio-1")


def of_an_earlier_release(house: House) -> None:
    house.has(30, stt_workers=None)


@pytest.mark.parametrize("trouble", [loading, silent, of_an_earlier_release])
async def test_a_reading_that_is_missing_changes_nothing_and_is_told_once(
    house: House, tmp_path: Path, trouble: Callable[[House], None]
) -> None:
    autoscaler = scaler(house, tmp_path)
    house.has(30)
    house.lag = (9.0, 50)
    trouble(house)
    with capture_logs() as said:
        await look(house, autoscaler, 10)
    assert house.scaled == []
    assert [each["event"] for each in said] == ["autoscale.not_read"]
    assert autoscaler.row()["not_read"] == said[0]["why"]
    house.states.clear()
    house.mute.clear()
    house.has(30)
    with capture_logs() as said:
        await look(house, autoscaler)
    assert said[0]["event"] == "autoscale.read_again"
    assert house.scaled == [("audio", 2)]
    assert "not_read" not in autoscaler.row()


async def test_a_store_that_does_not_answer_changes_nothing(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused() -> list[Waiting]:
        raise ConnectionRefusedError("no store")

    monkeypatch.setattr(house, "waiting", refused)
    autoscaler = scaler(house, tmp_path)
    house.has(30)
    await look(house, autoscaler)
    assert house.scaled == []


async def test_while_processes_are_changed_by_hand_nothing_is_changed(house: House, tmp_path: Path) -> None:
    autoscaler = scaler(house, tmp_path)
    house.has(30)
    house.changing = True
    await look(house, autoscaler)

    def begin() -> None:
        house.changing = True

    house.changing, house.asked = False, begin
    await look(house, autoscaler)
    assert house.scaled == [], "nor where that began during the reading"


async def test_where_processes_cannot_be_started_it_is_tried_again_later(house: House, tmp_path: Path) -> None:
    autoscaler = scaler(house, tmp_path)
    house.has(30)
    house.fails = True
    with capture_logs() as said:
        await look(house, autoscaler, int(AGAIN_S / READ_EVERY_S))
    assert house.scaled == [("audio", 2)]
    assert [each["event"] for each in said] == ["autoscale.not_scaled"]
    house.fails = False
    await look(house, autoscaler, 2)
    assert house.scaled == [("audio", 2), ("audio", 2)]
    assert house.names["audio"] == ["audio-1", "audio-2"]


async def test_a_process_that_gives_nothing_away_is_only_told(house: House, tmp_path: Path) -> None:
    autoscaler = scaler(house, tmp_path)
    house.has(30)
    house.shares = False
    with capture_logs() as said:
        await look(house, autoscaler)
    assert [each["event"] for each in said] == ["autoscale.scaled", "autoscale.not_shared"]


async def test_the_status_says_what_is_wanted_and_why(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    autoscaler, up = scaler(house, tmp_path), {"module": "up", "healthy": True, "alarms": []}
    monkeypatch.setattr("quickcomm.cli.admin.topology_status", lambda _: [up | {"autoscale": autoscaler.row()}])
    status = ["status", "--data-dir", str(tmp_path)]
    assert "AUTOSCALE: nothing is read yet" in CliRunner().invoke(main, status).output
    house.has(30)
    await look(house, autoscaler)
    silent(house)
    await look(house, autoscaler)
    said = CliRunner().invoke(main, status).output
    assert "AUTOSCALE audio: 2 of 1 to 8 wanted since 2023-11-14T" in said
    assert "30 talkers, and a process bears 16" in said
    assert "AUTOSCALE changes nothing now: audio-1 does not answer." in said


def test_a_monolith_is_not_scaled(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["up", "--autoscale", "--data-dir", str(tmp_path / "d")])
    assert done.exit_code == 1
    assert "--autoscale needs --deployment services" in done.output


# -- shares -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 200), min_size=1, max_size=8))
@examples(100)
def test_after_sharing_no_process_has_more_than_an_equal_share(talkers: list[int]) -> None:
    loads = {
        f"audio-{number}": AudioLoad(talkers=count, stt_workers=1, stt_backlog_s=0.0)
        for number, count in enumerate(talkers)
    }
    found = excess(loads)
    share = -(-sum(talkers) // len(talkers))
    for number, count in enumerate(talkers):
        given_away = found.get(f"audio-{number}", 0)
        assert given_away == max(0, count - share)
    assert sum(found.values()) <= sum(max(0, share - count) for count in talkers), "there is room for all of them"
