"""The emergency rules of a site pack on a text: certain and suspect wordings of danger, near misses taken out before.

Pure. Intelligence reads utterances by it, and audio its own transcripts, so that neither needs the other to know of an
emergency.
"""

import msgspec

from quickcomm.kernel.site_pack import Emergency, compile_patterns

MAX_TEXT = 2_000
"""Characters of an utterance that are read: more than a minute of speech."""

_TIDY = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014", "''\"\"--") | dict.fromkeys(
    (*range(32), *range(127, 160), 160, 8232, 8233), " "
)


def tidy(text: str) -> str:
    """Plain quotes and dashes, no control characters; of the same length, so that places in the text stay."""
    return text[:MAX_TEXT].translate(_TIDY)


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that spoke: `label` is an urgency or a kind of danger, `words` is `text[start:end]`."""

    label: str
    words: str
    start: int
    end: int
    department: str = ""
    sure: bool = True


class EmergencyRules:
    """A pack's rules of danger, compiled. Safe to share between threads."""

    def __init__(self, emergency: Emergency) -> None:
        self._rules = [
            (rule, sure, compile_patterns(patterns), compile_patterns(rule.unless))
            for rule in emergency.rules
            for sure, patterns in ((True, rule.patterns), (False, rule.suspect))
        ]
        self._near = compile_patterns(emergency.near_misses)
        self._channels = compile_patterns(emergency.channels)

    def first(self, text: str) -> Hit | None:
        """Return the first certain wording of danger in a raw text; None where there is none."""
        hits, _ = self.hits(tidy(text))
        return next((hit for hit in hits if hit.sure), None)

    def hits(self, text: str) -> tuple[tuple[Hit, ...], bool]:
        """Return all wordings of danger in a tidy text, in their order, and whether there was a near miss."""
        rest, near_miss = self._without_near_misses(text)
        hits = [
            Hit(
                label=rule.kind,
                words=text[m.start() : m.end()],
                start=m.start(),
                end=m.end(),
                department=rule.department,
                sure=sure,
            )
            for rule, sure, pattern, unless in self._rules
            if pattern is not None and not (unless is not None and unless.search(rest))
            for m in pattern.finditer(rest)
        ]
        return tuple(sorted(hits, key=lambda hit: hit.start)), near_miss

    def is_channel(self, name: str) -> bool:
        """Return True if a channel of this name is one for emergencies."""
        return self._channels is not None and self._channels.fullmatch(name.strip()) is not None

    def _without_near_misses(self, text: str) -> tuple[str, bool]:
        if self._near is None:
            return text, False
        rest, count = self._near.subn(lambda match: "|" * len(match.group()), text)
        return rest, count > 0
