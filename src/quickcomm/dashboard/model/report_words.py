"""A shift report in plain words, and whether somebody else's words keep to its numbers. Pure."""

import re
from typing import Final

from quickcomm.dashboard.model.report import ShiftReport
from quickcomm.dashboard.model.views import Task
from quickcomm.kernel.spoken_numbers import find_numbers, find_quantities

MAX_NARRATIVE: Final = 1_000
MINUTE: Final = 60
HOUR: Final = 3_600
DAY: Final = 86_400
_DIGITS: Final = re.compile(r"\d+(?:[.,]\d+)*")
_SENTENCE: Final = re.compile(r"[.!?;]+(?:\s|$)")
_SPACE: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")
_VAGUE: Final = frozenset({"a few", "few", "several", "a couple", "couple", "pair", "a pair", "one"})


def lasting(seconds: float) -> str:
    """As people say it: "40 s", "12 min", "3 h 20 min", "2 d 4 h"."""
    whole = max(0, round(seconds))
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min"
    if whole < DAY:
        rest = whole % HOUR // MINUTE
        return f"{whole // HOUR} h" + (f" {rest} min" if rest else "")
    rest = whole % DAY // HOUR
    return f"{whole // DAY} d" + (f" {rest} h" if rest else "")


def plain_words(report: ShiftReport) -> str:
    """What a colleague would say, from the numbers alone."""
    return " ".join([_came_in(report), *_handled(report), *_waiting(report), *_dangers(report)])


def facts(report: ShiftReport) -> str:
    """All that may be told about the shift, as text, for whoever tells it."""
    lines = [plain_words(report)]
    for title, counted in (("department", report.by_department), ("kind", report.by_intent)):
        lines += [f"{title} {item.name}: {item.requests} requests, {item.done} done" for item in counted]
    lines += [f"slow: {_name(item.task)}, took {lasting(item.seconds)}" for item in report.slowest]
    lines += [f"open: {_name(item.task)}, for {lasting(item.seconds)}" for item in report.open]
    for danger in report.emergency:
        seen = "not seen yet" if danger.seen_after_s is None else f"seen after {lasting(danger.seen_after_s)}"
        lines.append(f"danger: {_name(danger.task)}, {seen}")
    return "\n".join(lines)


def supported(text: str, facts: str) -> str | None:
    """The text on one line, if it is one and every number in it is among the facts."""
    text = _SPACE.sub(" ", text).strip()
    if not text or len(text) > MAX_NARRATIVE or not _numbers(text) <= _numbers(facts):
        return None
    return text


def _numbers(text: str) -> set[str]:
    """In digits and in words, without thousands separators."""
    found = {match.replace(",", "") for match in _DIGITS.findall(text)}
    for sentence in _SENTENCE.split(text):
        found |= {number.digits for number in find_numbers(sentence)}
        found |= {str(item.value) for item in find_quantities(sentence) if item.words.lower() not in _VAGUE}
    return found


def _came_in(report: ShiftReport) -> str:
    said = _plural(report.utterances, "utterance")
    if not report.requests:
        return f"In {lasting(report.hours * HOUR)}, {said} and no requests."
    most = report.by_department[0]
    share = "most of them" if most.requests * 2 > report.requests else "the most"
    mostly = f", {share} for {most.name.replace('_', ' ')} ({most.requests})"
    return f"In {lasting(report.hours * HOUR)}, {said} with {_plural(report.requests, 'request')}{mostly}."


def _handled(report: ShiftReport) -> list[str]:
    done = report.done
    if not report.requests:
        return []
    if done.p50_s is None or done.p95_s is None:
        return ["None of them is done yet."]
    return [f"{done.count} done, half of them within {lasting(done.p50_s)}, 95 % within {lasting(done.p95_s)}."]


def _waiting(report: ShiftReport) -> list[str]:
    if not report.open:
        return ["Nothing is open now."]
    oldest = report.open[0]
    return [f"{report.open_now} open now; the oldest, {_name(oldest.task)}, for {lasting(oldest.seconds)}."]


def _dangers(report: ShiftReport) -> list[str]:
    if not report.emergencies:
        return ["No emergency."]
    words = [_plural(report.emergencies, "emergency", "emergencies")]
    if report.emergencies_seen.p50_s is not None:
        words.append(f"half of them seen within {lasting(report.emergencies_seen.p50_s)}")
    if report.emergencies_unseen:
        words.append(f"{report.emergencies_unseen} not seen yet")
    return [", ".join(words) + "."]


def _name(task: Task) -> str:
    missing = [room for room in task.rooms if room not in task.summary]
    return f"“{task.summary}”" + (f" ({', '.join(missing)})" if missing else "")


def _plural(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
