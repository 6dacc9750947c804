"""Which utterance is the same transmission as another one: heard by two receivers, or by both tracks of a conversation.

One pure decision, `first_of`. It compares times, words, rooms, what is asked, and tracks. The same utterances have the
same relation whatever the order of their messages.
"""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Final

import msgspec

from quickcomm.contracts.insight import TASK_DONE
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.kernel.number_words import SMALL, TEN, ZEROES

DELAY_NS: Final = 1_500_000_000
"""How much later a second receiver may be."""
BLEED_NS: Final = 400_000_000
"""How much later the other track of one conversation may be."""
_STRETCH_NS: Final = 1_000_000_000
"""How much more one of begin and end may be moved by noise."""
_UNEVEN_NS: Final = 500_000_000
"""Two that last as long but for this need not overlap by half."""
_ALIKE, _ALIKE_LETTERS, _NEARLY_EQUAL, _CONTAINED = 0.6, 0.72, 0.8, 0.8
_COMMON: Final = 0.3
"""Below this share of common words two texts are not compared further."""
_PIECE: Final = 3
_ELSEWHERE, _ELSEWHERE_DONE = 2, 4
"""Words that must agree between two channels; more where a job is finished and no room says which."""
_ROOM: Final = (3, 4)
_DIGITS: Final = {word: str(value) for word, value in SMALL.items() if word not in ZEROES}
_NAMES: Final = {value: word for word, value in sorted(SMALL.items(), reverse=True)}
_WORD: Final = re.compile(r"[^\W_]+")


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What two utterances are compared by. `acts`: intents that open a task or close one."""

    utterance_id: str
    conversation_id: str
    speaker: int
    channel: str
    started_ns: int
    ended_ns: int
    words: tuple[str, ...]
    rooms: frozenset[str] = frozenset()
    things: frozenset[str] = frozenset()
    acts: frozenset[str] = frozenset()
    critical: bool = False

    @property
    def order(self) -> tuple[bool, int, int, int, int, str]:
        """The first of several copies is the one that says most; of equal ones, the earliest."""
        return (
            not self.critical,
            -len(self.acts),
            -len(self.rooms),
            -len(self.things),
            self.started_ns,
            self.utterance_id,
        )


def said(heard: UtteranceTranscribed, found: InsightsFound, least: float) -> Said:
    """Return what an utterance is compared by. `least`: how sure a closing must be to close a task."""
    acts = {
        insight.intent
        for insight in found.insights
        if (insight.confidence >= least if insight.intent == TASK_DONE else insight.index in found.opens_tasks)
    }
    return Said(
        utterance_id=heard.utterance_id,
        conversation_id=heard.conversation_id,
        speaker=heard.speaker,
        channel=heard.channel,
        started_ns=heard.spoken_at_ns,
        ended_ns=heard.speech_ended_ns,
        words=words_of(heard.text),
        rooms=frozenset(room for insight in found.insights for room in insight.rooms),
        things=frozenset(_noun(item.name) for insight in found.insights for item in insight.items),
        acts=frozenset(acts),
        critical=any(insight.urgency == "critical" for insight in found.insights),
    )


def _noun(name: str) -> str:
    """Return what a thing is, in the singular: "extra bath towels" → "towel"."""
    return name.rsplit(maxsplit=1)[-1].removesuffix("s") if name.split() else name


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a text in lower case, small numbers in digits: "two" and "2" are one word."""
    return tuple(_DIGITS.get(word, word) for word in _WORD.findall(text.lower().replace("'", "")))


def first_of(one: Said, others: Iterable[Said]) -> str | None:
    """Return the id of the utterance that `one` is a copy of, None if it is none. `others` may contain `one`."""
    firsts = [other for other in others if other.order < one.order and _is_copy(one, other)]
    return min(firsts, key=lambda other: other.order).utterance_id if firsts else None


def _is_copy(one: Said, first: Said) -> bool:
    """Return True if both are one transmission, and nothing is lost if `one` is left out."""
    if (one.conversation_id, one.speaker) == (first.conversation_id, first.speaker):
        return False
    if not (one.words and first.words and one.rooms <= first.rooms and one.things <= first.things):
        return False
    if one.critical > first.critical:
        return False
    whole, piece = _same_time(one, first), _within(one, first)
    if not (whole or piece):
        return False
    length = len(one.words) + len(first.words)
    common = len(set(one.words).intersection(first.words))
    if common < _least_words(one, first) or common / min(len(one.words), len(first.words)) < _COMMON:
        return False
    matched = _matched(one.words, first.words)
    ratio = 2 * matched / length
    alike = whole and (ratio >= _ALIKE or (ratio >= _COMMON and _letters(one, first)[0] >= _ALIKE_LETTERS))
    contained = piece and matched >= _PIECE
    contained = contained and (matched >= _CONTAINED * len(one.words) or _letters(one, first)[1] >= _CONTAINED)
    return (contained or alike) and (one.acts <= first.acts or _misheard(one, first, ratio))


def _same_time(one: Said, other: Said) -> bool:
    """Return True if both may be one sound: in noise the front end hears its begin or its end later."""
    longest = BLEED_NS if one.conversation_id == other.conversation_id else DELAY_NS
    begin, end = one.started_ns - other.started_ns, one.ended_ns - other.ended_ns
    common = min(one.ended_ns, other.ended_ns) - max(one.started_ns, other.started_ns)
    shorter = min(one.ended_ns - one.started_ns, other.ended_ns - other.started_ns)
    least, most = sorted((abs(begin), abs(end)))
    as_long = abs(begin - end) <= _UNEVEN_NS
    return least <= longest and most <= longest + _STRETCH_NS and common > 0 and (as_long or common >= shorter // 2)


def _within(one: Said, whole: Said) -> bool:
    """Return True if `one` may be a part of `whole`: a receiver in noise hears pauses elsewhere."""
    longest = BLEED_NS if one.conversation_id == whole.conversation_id else DELAY_NS
    early, late = one.started_ns - whole.started_ns, one.ended_ns - whole.ended_ns
    overlap = min(one.ended_ns, whole.ended_ns) > max(one.started_ns, whole.started_ns)
    return overlap and early >= -longest and late <= longest


def _matched(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Count the words that both have in the same order."""
    blocks = SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks)


def _letters(one: Said, first: Said) -> tuple[float, float]:
    """Return how alike the texts are letter by letter ("tarles", "towels"), and how much of `one` is in `first`.

    Nothing where they say different numbers; "for 12" is what is left of 412.
    """
    others = [word for word in first.words if word.isdecimal()]
    if not all(any(other.endswith(word) for other in others) for word in one.words if word.isdecimal()):
        return 0.0, 0.0
    mine, theirs = ("".join(map(_aloud, each.words)) for each in (one, first))
    *blocks, _ = SequenceMatcher(None, mine, theirs, autojunk=False).get_matching_blocks()
    if not blocks:
        return 0.0, 0.0
    common, extent = sum(block.size for block in blocks), blocks[-1].b + blocks[-1].size - blocks[0].b
    # Letters that are strewn over a long text are no part of it.
    return 2 * common / (len(mine) + len(theirs)), common / max(len(mine), extent)


def _aloud(word: str) -> str:
    """Return a number of three or four digits in letters, as a room is said: "412" → "fourtwelve"."""
    if not word.isdecimal() or len(word) > _ROOM[1]:
        return word
    if len(word) < _ROOM[0]:
        return _two_digits(int(word))
    high, low = divmod(int(word), 100)
    return _two_digits(high) + (("" if low >= TEN else "o") + _two_digits(low) if low else "hundred")


def _two_digits(value: int) -> str:
    return _NAMES.get(value) or _NAMES[value - value % 10] + _NAMES[value % 10]


def _least_words(one: Said, first: Said) -> int:
    """Return how many words must agree: two people may say "all done" on two channels at the same moment."""
    if one.channel == first.channel:
        return 1
    return _ELSEWHERE_DONE if TASK_DONE in one.acts and not one.rooms else _ELSEWHERE


def _misheard(one: Said, first: Said, ratio: float) -> bool:
    """Return True if nearly the same words were understood differently, and no closing is lost."""
    return ratio >= _NEARLY_EQUAL and len(one.acts) <= len(first.acts) and TASK_DONE not in one.acts - first.acts
