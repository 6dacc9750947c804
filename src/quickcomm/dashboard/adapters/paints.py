"""Which reports of painting count: the first one of a complete card that was pushed live to that page just now."""

from collections import OrderedDict
from typing import Final

from quickcomm.kernel.clock import Clock

JUST_NOW_S: Final = 10.0
"""A report that comes later is of a page that slept, not of a page that is slow."""
MAX_CARDS: Final = 512
"""Cards remembered for one page."""


class PaintReports:
    """For one page. Replayed cards, cards sent again and cards of other pages do not count: nobody waited for them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pushed: OrderedDict[str, float | None] = OrderedDict()

    def pushed(self, utterance_id: str) -> None:
        """Expect a report of this card, unless one was expected before."""
        if utterance_id not in self._pushed:
            self._pushed[utterance_id] = self._clock.monotonic()
            if len(self._pushed) > MAX_CARDS:
                self._pushed.popitem(last=False)

    def counts(self, utterance_id: str) -> bool:
        """Return True once for each card, if its report is in time."""
        at = self._pushed.get(utterance_id)
        if at is None:
            return False
        self._pushed[utterance_id] = None
        return self._clock.monotonic() - at <= JUST_NOW_S
