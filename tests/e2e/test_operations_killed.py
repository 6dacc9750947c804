"""Operations that are asked for while processes are killed and connections fail: none is half-done, none done twice."""

import os

import pytest
from benchmarks.operations_killed import DEFECTS, LOST_REPLIES, killed, parsed

SIZE = ("--operations", "8", "--kills", "5", "--faults", "8", "--seconds", "45")


@pytest.mark.long
async def test_operations_are_whole_whatever_is_killed() -> None:
    talkers = "2" if os.environ.get("QUICKCOMM_SPEECH_DATA") else "0"
    options = parsed([*SIZE, "--talkers", talkers, "--planted", LOST_REPLIES])
    print(f"seed {options.seed}")  # noqa: T201 - pytest shows it when the test fails
    outcome, rest = await killed(options)
    assert outcome.faults == {}, outcome
    assert rest["talkers_faults"] == {}
    assert {kind: row["asked"] for kind, row in outcome.kinds.items()} == dict.fromkeys(outcome.kinds, 8)
    assert sum(rest["kills"].values()) == 5


@pytest.mark.long
@pytest.mark.parametrize("planted", DEFECTS)
async def test_a_planted_defect_is_found(planted: str) -> None:
    outcome, _ = await killed(parsed([*SIZE, "--talkers", "0", "--planted", planted]))
    assert outcome.half_done or outcome.doubled, planted
