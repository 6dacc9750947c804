"""Takes card numbers, telephone numbers and e-mail addresses out of what is sent to a model, and puts them back.

text, context ──► mask ──► "[card 1]" goes to the model ──► restore ──► the insight says what was said. Numbers are
found as they are written and as they are spoken, digit by digit. Rooms, times, quantities and prices stay.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Final, Literal

import msgspec

from quickcomm.intelligence.model.digits import PHONE_WORDS, Digit, card_spans, digits_of, phone_spans, plain_digits
from quickcomm.intelligence.model.drafts import Draft, DraftEvidence, DraftItem

Kind = Literal["card", "phone", "email"]

_PLACEHOLDER: Final = re.compile(r"\[(card|phone|email) (\d+)\]", re.IGNORECASE)
_TLD: Final = (
    r"(?:com|net|org|edu|gov|mil|int|io|co|info|biz|me|us|uk|ca|au|de|fr|es|it|nl|eu|ch|at|be|se|no|dk|pl|jp|cn|in|br|mx"
    r"|ru|tv|app|dev|hotel|travel|online|xyz|ie|nz|pt|gr|cz|fi|hu|za|sg|hk|kr)"
)
_WRITTEN: Final = re.compile(r"[\w.+%-]+\s?@\s?[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}(?![\w@])")
_PART: Final = r"[A-Za-z0-9][\w+-]*(?:\.[\w+-]+)*"
_SPOKEN: Final = re.compile(
    rf"(?<![\w@])(?:(?:[A-Za-z0-9][ -]){{2,30}}[A-Za-z0-9]|{_PART})"
    rf"(?:\s+(?:dot|underscore|dash|hyphen|period|point|plus)\s+{_PART})*"
    rf"\s+at\s+[A-Za-z0-9][\w-]*(?:(?:\s+dot\s+|\.)[\w-]+){{0,3}}?(?:\s+dot\s+|\.){_TLD}(?:(?:\s+dot\s+|\.){_TLD})?(?![\w@])",
    re.IGNORECASE,
)


class Masked(msgspec.Struct, frozen=True, kw_only=True):
    """What may be sent, and how to undo it. `secrets` never leaves the process and is never logged."""

    text: str
    context: tuple[str, ...]
    secrets: Mapping[str, str]
    """From a placeholder to what stood there."""

    def restore(self, text: str) -> str:
        """Put back what the placeholders stand for, whatever case they come back in; others stay as they are."""
        return _PLACEHOLDER.sub(lambda match: self.secrets.get(match.group().lower(), match.group()), text)

    def restored(self, draft: Draft) -> Draft:
        """A model's claim in the words of the original."""

        def each(texts: Sequence[str]) -> tuple[str, ...]:
            return tuple(self.restore(text) for text in texts)

        if not self.secrets:
            return draft
        return msgspec.structs.replace(
            draft,
            rooms=each(draft.rooms),
            items=tuple(DraftItem(name=self.restore(item.name), quantity=item.quantity) for item in draft.items),
            summary=self.restore(draft.summary),
            evidence=DraftEvidence(
                rooms=each(draft.evidence.rooms),
                items=each(draft.evidence.items),
                urgency=each(draft.evidence.urgency),
            ),
        )


def mask(text: str, context: Sequence[str]) -> Masked:
    """Replace what must not leave by placeholders; the same words get the same one in text and context."""
    names = _Names([text, *context])
    masked = [names.replace(one) for one in (text, *context)]
    return Masked(text=masked[0], context=tuple(masked[1:]), secrets=names.secrets)


class _Names:
    """Hands out placeholders that do not stand in any of the texts already."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.secrets: dict[str, str] = {}
        self._given: dict[tuple[Kind, str], str] = {}
        self._taken = {match.group().lower() for text in texts for match in _PLACEHOLDER.finditer(text)}
        self._last: dict[Kind, int] = {"card": 0, "phone": 0, "email": 0}

    def replace(self, text: str) -> str:
        out, at = [], 0
        for kind, start, end in _spans(text):
            out += [text[at:start], self._name(kind, text[start:end])]
            at = end
        return "".join(out) + text[at:]

    def _name(self, kind: Kind, words: str) -> str:
        name = self._given.get((kind, words), "")
        while not name or name in self._taken:
            self._last[kind] += 1
            name = f"[{kind} {self._last[kind]}]"
        self._given[kind, words] = name
        self.secrets[name] = words
        return name


def _spans(text: str) -> list[tuple[Kind, int, int]]:
    """What to mask, in order, none overlapping: e-mail addresses first, then cards, then telephones."""
    kept: list[tuple[Kind, int, int]] = []
    for kind, start, end in chain(_emails(text), _numbers(text)):
        if all(end <= left or start >= right for _, left, right in kept):
            kept.append((kind, start, end))
    return sorted(kept, key=lambda span: span[1])


def _emails(text: str) -> Iterator[tuple[Kind, int, int]]:
    lower = text.lower()
    if "@" in text:
        yield from (("email", match.start(), match.end()) for match in _WRITTEN.finditer(text))
    if " at " in lower and ("." in text or " dot " in lower):
        yield from (("email", match.start(), match.end()) for match in _SPOKEN.finditer(text))


def _numbers(text: str) -> Iterator[tuple[Kind, int, int]]:
    text = plain_digits(text)
    digits: list[Digit] = digits_of(text)
    yield from (("card", start, end) for start, end in card_spans(text, digits))
    told = PHONE_WORDS.search(text) is not None
    yield from (("phone", start, end) for start, end in phone_spans(text, digits, told=told))
