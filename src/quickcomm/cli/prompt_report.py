"""The result of an evaluation in words and columns, for the terminal."""

from collections.abc import Iterator
from typing import Any, Final

Row = dict[str, Any]
SHARES: Final = (
    ("score", "score"),
    ("intent", "intent"),
    ("department", "department"),
    ("urgency", "urgency"),
    ("rooms", "rooms, exactly"),
    ("items", "items, F1"),
)
COUNTS: Final = (
    ("dangers_missed", "dangers missed"),
    ("failed", "without answer"),
    ("prompt_tokens", "tokens in"),
    ("completion_tokens", "tokens out"),
)
CONFUSIONS: Final = 8


def report(evaluation: Row, disagreements: int) -> str:
    return "\n".join(
        [*_table(evaluation), *_confusions(evaluation), *_differences(evaluation, disagreements), *_verdict(evaluation)]
    )


def _table(evaluation: Row) -> Iterator[str]:
    comparison = evaluation["comparison"]
    a, b = comparison["candidate"], comparison["live"]
    yield f"{comparison['set_name']} (set {comparison['set_id']}), model {comparison['model']}"
    yield ""
    yield _line("", evaluation["prompt_id"], f"live {comparison['against_id']}")
    for key, title in SHARES:
        change = f"{(a[key] - b[key]) * 100:+.1f}"
        yield _line(title, f"{a[key]:.1%}", f"{b[key]:.1%}", "" if a[key] == b[key] else change)
    yield _line("calibration error", f"{a['calibration_error']:.3f}", f"{b['calibration_error']:.3f}")
    for key, title in COUNTS:
        of = f" of {a['dangers']}" if key == "dangers_missed" else ""
        yield _line(title, f"{a[key]:,}{of}", f"{b[key]:,}{of}")
    for key, title in (("latency_p50_ms", "latency p50"), ("latency_p95_ms", "latency p95")):
        yield _line(title, f"{a[key]:,.0f} ms", f"{b[key]:,.0f} ms")
    if a["cost"] or b["cost"]:
        yield _line("cost", f"{a['cost']:.4f}", f"{b['cost']:.4f}")


def _line(title: str, candidate: str, live: str, change: str = "") -> str:
    return f"{title:18}{candidate:>16}{live:>20}  {change}".rstrip()


def _confusions(evaluation: Row) -> Iterator[str]:
    for key, title in (("candidate_confusion", evaluation["prompt_id"]), ("live_confusion", "live")):
        found = evaluation[key]
        if found:
            yield ""
            yield f"Intents that {title} mistakes:"
            for one in found[:CONFUSIONS]:
                yield f"  {one['expected']} → {one['found']}  {one['count']} times"
            if len(found) > CONFUSIONS:
                yield f"  and {len(found) - CONFUSIONS} more"


def _differences(evaluation: Row, shown: int) -> Iterator[str]:
    found = evaluation["disagreements"]
    if not found or shown <= 0:
        return
    yield ""
    yield f"Cases on which the two disagree: {len(found)}" + (
        f", the worst {shown} of them:" if len(found) > shown else ":"
    )
    for one in found[:shown]:
        yield f"  {one['text']!r}"
        yield f"    label      {_said(one['expected'])}"
        yield f"    candidate  {_said(one['candidate'])}{_wrong(one['candidate_wrong'])}"
        yield f"    live       {_said(one['live'])}{_wrong(one['live_wrong'])}"


def _said(insights: list[Row] | None) -> str:
    if insights is None:
        return "no usable answer"
    return " | ".join(
        " ".join(
            [
                one["intent"],
                one["department"],
                one["urgency"],
                *one["rooms"],
                *(f"{item['quantity']} {item['name']}" for item in one["items"]),
            ]
        )
        for one in insights
    )


def _wrong(fields: list[str]) -> str:
    return f"  (wrong: {', '.join(fields)})" if fields else "  (right)"


def _verdict(evaluation: Row) -> Iterator[str]:
    comparison = evaluation["comparison"]
    yield ""
    if comparison["against_id"] == evaluation["prompt_id"]:
        yield "This is the live version itself."
    elif comparison["falls_below"]:
        yield f"It falls below the live version: {'; '.join(comparison['falls_below'])}."
    else:
        yield f"As good as the live version, or better. quickcomm prompts deploy {evaluation['prompt_id']} --canary 10"
