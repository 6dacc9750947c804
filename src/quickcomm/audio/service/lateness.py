"""How far one line is behind, and when its client and the page are told."""

from typing import Final

TELL_S: Final = 3.0
"""A line is told to be behind from here on (an urgent one from its bound on), and again every so many seconds."""
WHOLE_S: Final = 1.2
"""Below it, a line that was told to be behind is whole again."""
BOUND_S: Final = 5.0
URGENT_BOUND_S: Final = 2.0
"""Beyond these a line is worth an alarm; the second one is for urgent lines."""


class Lateness:
    """What is told of a line: nothing while it is in time."""

    def __init__(self) -> None:
        self.told = False
        """The last word was that it is behind."""
        self._again_at = 0.0

    def look(self, behind_s: float, now: float, *, urgent: bool = False) -> int | None:
        """Return the milliseconds to tell, 0 once when it is whole again; None where there is nothing to tell.

        `now`: monotonic seconds.
        """
        from_s = URGENT_BOUND_S if urgent else TELL_S
        if self.told and behind_s < WHOLE_S:
            self.told = False
            return 0
        if behind_s < from_s or (self.told and now < self._again_at):
            return None
        self.told, self._again_at = True, now + TELL_S
        return round(behind_s * 1_000)
