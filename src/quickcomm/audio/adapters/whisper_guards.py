"""Judges what Whisper wrote: repetition loops, and text that no speech in the audio supports. Pure functions.

Whisper repeats itself when its window is short or its prompt misleads it, and writes subtitles' commonplaces over noise
(Koenecke et al. 2024, "Careless Whisper"). The figures behind the thresholds are in docs/adr/0003.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise

_WORD = re.compile(r"[\w'\u2019*-]+")

# A phrase said this often in a row is a loop, by the number of words in it; people do say "go, go, go, go".
_MOST_REPEATS = {1: 5, 2: 3}
_MOST_PHRASE_REPEATS = 2
_SHORTEST_DOUBLE = 3
_FASTEST = 4.0
"""Words a second: 2 to 3.5 are usual, and who repeats himself on the radio does so to be understood."""

# English compresses the better the longer it is: 1.5 is much for a sentence, and little for half a minute of talk.
_SHORT_RATIO, _LONG_RATIO = 1.5, 2.0
_SHORT_BYTES, _LONG_BYTES = 160, 480

_SPELT_LIKE = 0.5
"""Share of letters in order that "towels" and "town else" have in common, and "minibar" and "needs a" do not."""
_SHORTEST_WORD = 4
"""Letters of a word that is no "to", "is" or "a"."""

COMMONPLACES = frozenset(
    {
        "", "you", "i", "the", "and", "so", "uh", "um", "oh", "okay", "bye", "bye bye", "thank you", "thanks",
        "thank you very much", "thank you so much", "thanks for watching", "thank you for watching", "please subscribe",
        "i'm sorry", "subtitles by the amara org community", "i'll see you next time", "see you next time",
    }
)  # fmt: skip
"""What Whisper writes over nothing, without case and punctuation; kept only where the audio speaks for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is known of a decoding. `log_prob`: mean over tokens; `no_speech`: probability that nobody spoke."""

    text: str
    log_prob: float
    no_speech: float
    prompt: str = ""


def normal(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def compresses_too_well(text: str) -> bool:
    data = text.encode()
    ratio = len(data) / len(zlib.compress(data))
    share = (min(max(len(data), _SHORT_BYTES), _LONG_BYTES) - _SHORT_BYTES) / (_LONG_BYTES - _SHORT_BYTES)
    return ratio > _SHORT_RATIO + share * (_LONG_RATIO - _SHORT_RATIO)


def repeats(text: str) -> bool:
    """Whether the text loops: a phrase many times in a row, or text that compresses too well for its length."""
    return without_loops(text) != text or compresses_too_well(text)


def without_hurry(text: str, seconds: float) -> str:
    """Return the first of several sayings of one phrase that come faster than people speak."""
    words = list(_WORD.finditer(text))
    said = [word[0].lower() for word in words]
    if len(said) <= _FASTEST * seconds:
        return text
    for size in range(_SHORTEST_DOUBLE, len(said) // 2 + 1):
        if said[size:] == said[:-size]:
            return text[: words[size].start()].strip()
    return text


def adds_a_name(text: str, first: str, names: Sequence[str]) -> bool:
    """Return True if the text has one of `names` where the first reading has nothing that is spelt like it."""
    said = normal(first).split()
    windows = {"".join(said[at : at + size]) for size in (1, 2, 3) for at in range(len(said))}
    return any(
        f" {name} " in f" {normal(text)} "
        and not any(SequenceMatcher(None, name.replace(" ", ""), window).ratio() >= _SPELT_LIKE for window in windows)
        for name in map(normal, names)
    )


def says_all_again(text: str) -> bool:
    """Return True if the text is one phrase said twice or more, and nothing else: people do so, and so does Whisper."""
    return without_hurry(text, 0.0) != text


def echoed(text: str, prompt: str, *, barely: bool) -> frozenset[str]:
    """Return the words of the text that may be an echo of the prompt; only a decoding without it can tell.

    They are all words where the prompt has each of them, words that stand side by side in both, and where the
    sound supports the text `barely`, each longer word or number.
    """
    said, before = normal(text).split(), normal(prompt).split()
    if set(said) <= set(before):
        return frozenset(said)
    pairs = set(pairwise(said)) & set(pairwise(before))
    echo = {word for pair in pairs for word in pair}
    if barely:
        echo |= {word for word in before if word in said and (len(word) >= _SHORTEST_WORD or word.isdecimal())}
    return frozenset(echo)


def without_loops(text: str) -> str:
    """Cut each phrase that is repeated past belief down to one; other text is untouched."""
    spans = [(match.start(), match.end()) for match in _WORD.finditer(text)]
    said = [text[start:end].lower() for start, end in spans]
    at = 0
    while at < len(said):
        for size in range(1, (len(said) - at) // 2 + 1):
            times = _times(said, at, size)
            if times > _MOST_REPEATS.get(size, _MOST_PHRASE_REPEATS):
                # A loop is mostly cut off in the middle of the phrase.
                end = at + size * times + _begun_again(said, at, size, times)
                cut = text[: spans[at + size - 1][1]] + text[spans[end - 1][1] :]
                return without_loops(cut)
        at += 1
    return text


def _times(said: list[str], at: int, size: int) -> int:
    times = 1
    while said[at + size * times : at + size * (times + 1)] == said[at : at + size]:
        times += 1
    return times


def _begun_again(said: list[str], at: int, size: int, times: int) -> int:
    rest = said[at + size * times :]
    return len(rest) if len(rest) < size and rest == said[at : at + len(rest)] else 0


def unsupported(heard: Judgement) -> bool:
    """Whether nobody said this: noise, silence, a commonplace, a loop over noise, or an echo of the prompt."""
    said = normal(heard.text)
    if not said or (heard.no_speech > _NOBODY and (heard.log_prob < _CERTAIN or repeats(heard.text))):
        return True
    if heard.no_speech > _HINT and heard.log_prob < _GUESSED:
        return True
    if heard.no_speech <= (_DOUBT_PROMPTED if heard.prompt else _DOUBT):
        return False
    echo = bool(heard.prompt) and f" {said} " in f" {normal(heard.prompt)} "
    return echo or said in COMMONPLACES or heard.log_prob < _UNSURE or repeats(heard.text)


# No-speech probabilities. Over 180 noises the lowest was 0.42 after a sentence (a tone 0.21, but guessed) and 0.62
# without; over 634 spoken clips, half of them degraded, the highest was 0.24 after a sentence and 0.63 without. Loops
# over noise look certain of themselves, so the log-probability alone says little. See docs/adr/0028.
_NOBODY = 0.6
_HINT, _GUESSED = 0.15, -1.75
_DOUBT = 0.42
_DOUBT_PROMPTED = 0.25
_CERTAIN = -0.1
_UNSURE = -1.0
