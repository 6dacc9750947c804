"""What is remembered of a conversation in order to summarize it. Pure, bounded; a message counts once."""

from typing import Final

import msgspec

from quickcomm.contracts.insight import CLOSING_CONFIDENCE, TASK_DONE, Insight, Source
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.summaries import ConversationSummarized
from quickcomm.contracts.transcripts import UtteranceTranscribed

MAX_LINES: Final = 40
MAX_LINE: Final = 300
MAX_NOTES: Final = 60
NS: Final = 10**9
_replace = msgspec.structs.replace


class SummarySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a summary is renewed: after some quiet, after so many utterances, or at the end of the conversation."""

    by_model: bool = True
    """False: only from the insights, even where there is a language model."""
    quiet_s: float = 20.0
    utterances: int = 10
    settle_s: float = 2.0
    """What calls for a new summary at once still waits so long, for the insights of the last words."""
    concurrency: int = 2
    """Calls to the model at once for summaries and reports; live utterances have their own."""
    timeout_s: float = 15.0
    late_s: float = 60.0
    """A summary that is due for so long is made locally: the model has no time for it."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """Something said that no summary of the model covers yet."""

    seq: int
    speaker: int
    text: str
    utterance_id: str = ""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    summary: str
    rooms: tuple[str, ...] = ()
    department: str = ""
    critical: bool = False


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What one utterance asks for, and in which rooms it says that a job is finished."""

    utterance_id: str
    at_ns: int
    revision: int
    asked: tuple[Asked, ...] = ()
    done: tuple[tuple[str, ...], ...] = ()
    numbers: tuple[str, ...] = ()


class Talk(msgspec.Struct, frozen=True, kw_only=True):
    """`changes` counts whatever happened; `covered` how much of it the newest summary knows."""

    site: str
    conversation_id: str
    channel: str
    revision: int = 0
    text: str = ""
    source: Source = "local"
    base: str = ""
    """The newest summary by the model, which the next one goes on from."""
    utterances: int = 0
    summarized: int = 0
    """Of the utterances, those that were there when the newest summary was made."""
    last_seq: int = 0
    lines: tuple[Line, ...] = ()
    notes: tuple[Note, ...] = ()
    ended: bool = False
    changes: int = 0
    covered: int = 0
    changed_ns: int = 0
    urgent_ns: int | None = None
    """When it became due without waiting for quiet."""


def heard(talk: Talk, message: UtteranceTranscribed, rules: SummarySettings, now_ns: int) -> Talk:
    """In order, once each: a `seq` that is not higher was here before (or is told too late, and left out)."""
    if message.seq <= talk.last_seq:
        return talk
    said = message.text and message.status == "ok" and not _has_line(talk, message.utterance_id)
    line = Line(
        seq=message.seq,
        speaker=message.speaker,
        text=message.text[:MAX_LINE],
        utterance_id=message.utterance_id,
    )
    lines = (*talk.lines, line)[-MAX_LINES:] if said else talk.lines
    after = _replace(talk, channel=message.channel, lines=lines, last_seq=message.seq, utterances=talk.utterances + 1)
    return _changed(after, now_ns, urgent=after.utterances - after.summarized >= rules.utterances)


def found(talk: Talk, message: InsightsFound, now_ns: int) -> Talk:
    """The highest revision of each utterance stands, whatever comes first; with it a text that was corrected."""
    others = tuple(note for note in talk.notes if note.utterance_id != message.utterance_id)
    before = next((note for note in talk.notes if note.utterance_id == message.utterance_id), None)
    if before is not None and before.revision >= message.revision:
        return talk
    note = _note(message)
    if message.text is not msgspec.UNSET:
        talk = _with_text(talk, message.utterance_id, message.text[:MAX_LINE])
    elif not note.asked and not note.done and (before is None or not (before.asked or before.done)):
        return talk
    notes = tuple(sorted((*others, note), key=lambda item: (item.at_ns, item.utterance_id)))[-MAX_NOTES:]
    return _changed(_replace(talk, notes=notes), now_ns)


def ended(talk: Talk, now_ns: int) -> Talk:
    return talk if talk.ended else _changed(_replace(talk, ended=True), now_ns, urgent=True)


def due_ns(talk: Talk, rules: SummarySettings) -> int | None:
    """When the summary is to be renewed; None while it covers everything."""
    if talk.changes == talk.covered or talk.utterances == 0:
        return None
    quiet = talk.changed_ns + int(rules.quiet_s * NS)
    if talk.urgent_ns is None and not talk.ended:
        return quiet
    since = talk.changed_ns if talk.urgent_ns is None else talk.urgent_ns
    return min(quiet, since + int(rules.settle_s * NS))


def summarized(talk: Talk, seen: Talk, text: str, source: Source) -> Talk:
    """`talk` as it is now, with a summary made of it as it was when `seen`."""
    by_model = source == "llm"
    return _replace(
        talk,
        revision=talk.revision + (text != talk.text or source != talk.source),
        text=text,
        source=source,
        base=text if by_model else talk.base,
        lines=tuple(line for line in talk.lines if line.seq > seen.last_seq) if by_model else talk.lines,
        summarized=seen.utterances,
        covered=seen.changes,
        urgent_ns=talk.urgent_ns if talk.urgent_ns != seen.urgent_ns else None,
    )


def adopted(talk: Talk, message: ConversationSummarized) -> Talk:
    """`talk` with a summary that the other side has made of it, which the next one goes on from."""
    if message.revision <= talk.revision:
        return talk
    by_model, behind = message.source == "llm", max(0, talk.utterances - message.utterances)
    after = _replace(
        talk,
        revision=message.revision,
        text=message.text,
        source=message.source,
        base=message.text if by_model else talk.base,
        lines=talk.lines[len(talk.lines) - behind :] if by_model and behind < len(talk.lines) else talk.lines,
        summarized=message.utterances,
    )
    return after if behind else _replace(after, covered=talk.changes, urgent_ns=None)


def requests(talk: Talk) -> tuple[list[Asked], list[Asked]]:
    """What is open and what is done, in the order asked. A finished job closes the newest request of its rooms."""
    is_open: list[Asked] = []
    done: list[Asked] = []
    for note in talk.notes:
        for rooms in note.done:
            match = next((asked for asked in reversed(is_open) if set(rooms) & set(asked.rooms)), None)
            if match is not None:
                is_open.remove(match)
                done.append(match)
        is_open.extend(note.asked)
    return is_open, done


def _has_line(talk: Talk, utterance_id: str) -> bool:
    return any(line.utterance_id == utterance_id for line in talk.lines)


def _with_text(talk: Talk, utterance_id: str, text: str) -> Talk:
    """Put a corrected text in its place; behind all others where a summary covers that, or the line is to come."""
    lines = [_replace(line, text=text) if line.utterance_id == utterance_id else line for line in talk.lines]
    if not _has_line(talk, utterance_id):
        lines.append(Line(seq=talk.last_seq, speaker=0, text=text, utterance_id=utterance_id))
    return _replace(talk, lines=tuple(lines[-MAX_LINES:]))


def _changed(talk: Talk, now_ns: int, *, urgent: bool = False) -> Talk:
    since = now_ns if urgent and talk.urgent_ns is None else talk.urgent_ns
    return _replace(talk, changes=talk.changes + 1, changed_ns=now_ns, urgent_ns=since)


def _note(message: InsightsFound) -> Note:
    asked = [item for item in message.insights if item.index in message.opens_tasks and item.intent != TASK_DONE]
    numbers = {room for item in message.insights for room in item.rooms}
    numbers |= {str(thing.quantity) for item in message.insights for thing in item.items}
    return Note(
        utterance_id=message.utterance_id,
        at_ns=message.speech_ended_ns,
        revision=message.revision,
        asked=tuple(_asked(item) for item in asked),
        done=tuple(
            item.rooms
            for item in message.insights
            if item.intent == TASK_DONE and item.rooms and item.confidence >= CLOSING_CONFIDENCE
        ),
        numbers=tuple(sorted(numbers)),
    )


def _asked(insight: Insight) -> Asked:
    return Asked(
        summary=insight.summary,
        rooms=insight.rooms,
        department=insight.department,
        critical=insight.urgency == "critical",
    )
