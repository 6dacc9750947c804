"""What a site has to do over a day: conversations, how much of them is speech, pages, and who asks how often."""

import tomllib
from typing import Annotated, Final, Literal

import msgspec

from quickcomm.kernel.errors import InvalidInputError

DAY_H: Final = 24.0
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[float, msgspec.Meta(ge=0)]


class Level(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How it is at one time of day; between two times it changes evenly. `at_h`: hours since midnight."""

    at_h: Annotated[float, msgspec.Meta(ge=0, lt=DAY_H)]
    conversations: Count
    """Open at the same time."""
    speech: Share
    """Of the time of a conversation in which somebody speaks."""
    pages: Count = 0
    queries_per_s: Count = 0


class Load(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A day that comes again and again.

    `model`: the share of utterances that a language model is asked about; `utterance_s`: seconds of speech in one;
    `burst`: how much more than the level is there for a minute at times (1.0: never).
    """

    name: str
    level: Annotated[tuple[Level, ...], msgspec.Meta(min_length=1)]
    model: Share = 0.0
    utterance_s: Annotated[float, msgspec.Meta(gt=0)] = 3.0
    burst: Annotated[float, msgspec.Meta(ge=1)] = 1.0

    def __post_init__(self) -> None:
        """Raise `ValueError` where times do not rise."""
        times = [each.at_h for each in self.level]
        if times != sorted(set(times)):
            message = "the times of `level` must rise"
            raise ValueError(message)

    @property
    def busiest(self) -> Level:
        """Return the level with the most people who speak at once."""
        return max(self.level, key=lambda level: level.conversations * level.speech)

    def at(self, hour: float) -> Level:
        """Return the level at a time of day; the last one of a day leads to the first one of the next."""
        hour %= DAY_H
        before = [each for each in self.level if each.at_h <= hour]
        first = before[-1] if before else self.level[-1]
        after = [each for each in self.level if each.at_h > hour]
        last = after[0] if after else self.level[0]
        if first is last:
            return msgspec.structs.replace(first, at_h=hour)
        span = (last.at_h - first.at_h) % DAY_H
        share = ((hour - first.at_h) % DAY_H) / span

        def between(name: Literal["conversations", "speech", "pages", "queries_per_s"]) -> float:
            low, high = getattr(first, name), getattr(last, name)
            return float(low + share * (high - low))

        return Level(
            at_h=hour,
            conversations=between("conversations"),
            speech=between("speech"),
            pages=between("pages"),
            queries_per_s=between("queries_per_s"),
        )


def read_load(content: bytes) -> Load:
    """Read TOML. Raises `InvalidInputError` with what is wrong and where."""
    try:
        return msgspec.convert(tomllib.loads(content.decode()), Load)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvalidInputError(f"Not a load: {error}. An example is in docs/what-will-it-cost.md.") from error
