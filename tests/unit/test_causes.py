"""What holds an utterance up, in words: which group, which process, of which side, and what to do."""

from typing import Any, Final

import msgspec
import pytest

from quickcomm.contracts.checking import Standing
from quickcomm.contracts.insights import INSIGHTS
from quickcomm.contracts.prompts import PromptEvent
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.kernel.checking.repairs import Letter
from quickcomm.operate.causes import Known, causes, of_utterance
from quickcomm.operate.understood import understood_words, way_back

NS: Final = 1_000_000_000
NOW: Final = 1_800_000_000 * NS
WAITS: Final = Standing(
    stream=TRANSCRIPTS,
    partition=3,
    group="intelligence",
    count=4,
    at_most=10_000,
    oldest_ns=NOW - 20 * NS,
    waits_since_ns=NOW - 12 * NS,
    reader="",
)


def row(module: str, pid: int = 100, **more: Any) -> dict[str, Any]:
    return {"module": module, "process": f"{module}-1", "pid": pid, "healthy": True, **more}


def known(**more: Any) -> Known:
    rows = [row("up"), row("audio", 101), row("intelligence", 102), row("dashboard", 103)]
    return msgspec.structs.replace(Known(standing=[WAITS], rows=rows, now_ns=NOW), **more)


def test_a_consumer_that_hangs_is_named_with_its_side_and_the_command_that_replaces_it() -> None:
    rows = [row("audio", 101), row("intelligence", 102, healthy=False)]
    [found] = causes(known(rows=rows))
    assert found.code == "group.waits"
    assert found.event == "transcripts.v1/intelligence"
    assert found.detail == (
        "Its transcript waits for intelligence (service side, group intelligence) since 12 s, in partition 3 of "
        "transcripts.v1; 4 messages wait there. No process of group intelligence reads it. "
        "intelligence-1 (service side, pid 102) does not answer."
    )
    assert found.repair == "quickcomm restart intelligence"


def test_one_that_is_only_slow_is_named_as_the_reader() -> None:
    [found] = causes(known(standing=[msgspec.structs.replace(WAITS, reader="host-x-102-abcd", count=1)]))
    assert "nothing else waits there. intelligence-1 (service side, pid 102) reads it." in found.detail
    assert found.repair.startswith("It is being worked off"), "a restart would only hold it up"


@pytest.mark.parametrize(
    ("group", "wanted", "repair"),
    [
        ("intelligence", "monolith-1 (monolith side, pid 1) does not answer", "quickcomm restart monolith"),
        (
            "intelligence@service",
            "intelligence-1 (service side, pid 2) does not answer",
            "quickcomm restart intelligence",
        ),
    ],
)
def test_during_a_migration_the_side_that_must_answer_is_named(group: str, wanted: str, repair: str) -> None:
    side = "service" if "@" in group else "monolith"
    rows = [row("monolith", 1, healthy=False), row("intelligence", 2, healthy=False)]
    waits = msgspec.structs.replace(WAITS, side=side)
    both = [msgspec.structs.replace(waits, group=each) for each in ("intelligence", "intelligence@service")]
    [found] = causes(known(rows=rows, standing=both))
    assert found.event == f"{TRANSCRIPTS}/{group}"
    assert f"({side} side, group {group})" in found.detail
    assert wanted in found.detail
    assert found.repair == repair


def test_what_a_card_does_not_need_holds_nothing_up() -> None:
    others = [msgspec.structs.replace(WAITS, group="summaries"), msgspec.structs.replace(WAITS, stream="decisions.v1")]
    assert causes(known(standing=[*others, msgspec.structs.replace(WAITS, waits_since_ns=0)])) == []
    assert causes(known(complete=True)) == []


def test_where_no_process_runs_it_says_how_to_start_one() -> None:
    [found] = causes(known(rows=[row("up"), row("audio")]))
    assert "No process of group intelligence runs." in found.detail
    assert found.repair == "quickcomm scale intelligence=1"
    [found] = causes(known(rows=[]))
    assert "No process of the site runs." in found.detail
    assert found.repair == "quickcomm up"


def test_an_unwell_process_says_why() -> None:
    rows = [row("intelligence", 102, healthy=False, alarms=[{"message": "The database is away."}])]
    [found] = causes(known(rows=rows))
    assert "intelligence-1 (service side, pid 102) is unwell: The database is away." in found.detail


def test_a_full_partition_says_who_holds_it_up_and_who_waits() -> None:
    full = msgspec.structs.replace(WAITS, count=10_000, waits_since_ns=0)
    quick = msgspec.structs.replace(WAITS, group="dashboard", count=0, waits_since_ns=0)
    rows = [row("audio", 101), row("intelligence", 102, healthy=False), row("dashboard", 103)]
    same = msgspec.structs.replace(full, group="summaries")
    [found] = causes(known(standing=[quick, full, same], rows=rows))
    assert found.code == "partition.full"
    assert found.detail.startswith(
        "Publishing waits: partition 3 of transcripts.v1 is full. 10000 messages wait there for intelligence "
        "(service side, group intelligence), the first since "
    )
    assert "audio keeps what is said and publishes it when there is room." in found.detail
    assert "intelligence-1 (service side, pid 102) does not answer." in found.detail
    assert found.repair == "quickcomm restart intelligence"
    unbounded = msgspec.structs.replace(full, at_most=0)
    assert causes(known(standing=[unbounded])) == []


def test_a_dead_letter_says_why_it_is_one_and_how_it_is_replayed() -> None:
    letter = Letter(
        id=7,
        stream=INSIGHTS,
        group="dashboard",
        conversation_id="a",
        utterance_id="a:0:1",
        reason="IntegrityError: no",
        at_ns=NOW,
    )
    [found] = causes(known(complete=True, letters=[letter]))
    assert found.detail == (
        "Its insights (dead letter 7, of insights.v1) could not be handled by dashboard (service side, group "
        "dashboard): IntegrityError: no"
    )
    assert found.repair.startswith("quickcomm dead-letters replay 7,")
    other = msgspec.structs.replace(letter, utterance_id="a:0:2")
    unreadable = msgspec.structs.replace(letter, utterance_id="")
    elsewhere = msgspec.structs.replace(letter, conversation_id="b")
    letters = [letter, other, unreadable, elsewhere]
    assert of_utterance(letters, "a", "a:0:1") == [letter, unreadable]
    assert of_utterance(letters, "a", "") == [letter, other, unreadable]


def test_a_slow_hop_is_between_the_store_and_one_process() -> None:
    rows = [
        row("audio", 101, store_ms=1.2),
        row("intelligence", 102, store_ms=620.0),
        row("dashboard", 103, store_ms=2),
    ]
    [found] = causes(Known(complete=True, late=True, rows=rows, now_ns=NOW))
    assert found.detail == (
        "The hop between the store and intelligence-1 (service side, pid 102) is slow: an answer takes 620 ms, "
        "and 1 ms to the quickest process."
    )
    assert found.repair.endswith("quickcomm restart intelligence")
    assert causes(Known(complete=True, rows=rows, now_ns=NOW)) == [], "it came in time"
    rows = [{**each, "store_ms": 400.0} for each in rows]
    [found] = causes(Known(complete=True, late=True, rows=rows, now_ns=NOW))
    assert found.code == "store.slow"
    rows = [{**each, "store_ms": 40.0} for each in rows]
    assert causes(Known(complete=True, late=True, rows=rows, now_ns=NOW)) == []


# -- prompts ----------------------------------------------------------------------------------------------------------

MINE: Final = {"source": "llm", "model": "m-1", "prompt_version": "aa11", "side": ""}
VERSIONS: Final = [
    {"id": "aa11", "name": "shorter", "state": "live", "weight": 100},
    {"id": "bb22", "name": "built-in", "state": "", "weight": 0},
]
EVENT: Final = PromptEvent(
    at="2026-01-01T08:00:00Z",
    by="ann",
    action="deployed",
    prompt_id="aa11",
    name="shorter",
    against_id="bb22",
    weight=100,
    forced=True,
)


def test_a_card_names_its_prompt_who_put_it_in_force_and_what_was_before() -> None:
    assert understood_words(MINE, VERSIONS, [EVENT]) == (
        "Understood by the language model m-1 (of intelligence) with prompt aa11 “shorter”; in force since "
        "2026-01-01T08:00:00Z by ann, without the evidence of an evaluation; before it: bb22 “built-in”."
    )
    assert way_back(MINE, VERSIONS, [EVENT]) == "quickcomm prompts rollback"
    assert "(of intelligence, monolith side)" in understood_words({**MINE, "side": "monolith"}, VERSIONS, [EVENT])


def test_a_version_that_was_taken_back_needs_no_command() -> None:
    versions = [{**VERSIONS[0], "state": ""}, {**VERSIONS[1], "state": "live"}]
    back = msgspec.structs.replace(EVENT, action="rolled_back", prompt_id="bb22", against_id="aa11")
    assert understood_words(MINE, versions, [back, EVENT]).endswith("It is not in force any more.")
    assert way_back(MINE, versions, [back, EVENT]) == ""
    assert way_back({**MINE, "prompt_version": "bb22"}, versions, [back, EVENT]) == "", "it was the first"


def test_a_rollback_would_take_the_canary_first() -> None:
    canary = {"id": "cc33", "name": "new", "state": "canary", "weight": 30}
    assert way_back(MINE, [canary, *VERSIONS], [EVENT]) == "quickcomm prompts deploy bb22 --force"
    of_canary = {**MINE, "prompt_version": "cc33"}
    event = msgspec.structs.replace(EVENT, action="canary", prompt_id="cc33", against_id="aa11", weight=30)
    assert way_back(of_canary, [canary, *VERSIONS], [event, EVENT]) == "quickcomm prompts rollback"
    assert ", canary for 30 % of the conversations;" in understood_words(of_canary, [canary, *VERSIONS], [event])


def test_the_local_classifier_has_no_prompt() -> None:
    local = {"source": "local", "model": "l-1", "prompt_version": None, "side": ""}
    assert understood_words(local, (), ()) == "Understood by the local classifier l-1 (of intelligence)."
    assert way_back(local, (), ()) == ""
