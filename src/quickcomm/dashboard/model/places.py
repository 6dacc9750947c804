"""Where a client goes on: in a list, or in the changes of a site. Both name the side that gave them.

Two dashboards (a monolith's and a service's, a site and its restored backup) number rows and changes each by itself.
"""

from typing import Final

import msgspec

from quickcomm.kernel.errors import GoneError

RESET: Final = "Begin again without it, and take what has the same id for the same. The numbers here are other ones"


class CursorResetError(GoneError):
    """A `cursor` or `after` that this side did not give."""

    code = "cursor.reset"


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """A place in a list, newest first: behind the item of this time and row. `side` None: of an earlier version."""

    side: str | None = None
    time_ns: int
    row: int


class After(msgspec.Struct, frozen=True, kw_only=True):
    """A point in the changes of a site: all of them up to `change` are known.

    `index`: of the items of `change` itself, those up to this one; None: all. `side` None: a plain number was given.
    """

    side: str | None = None
    change: int
    index: int | None = None

    def __str__(self) -> str:
        """Return it as clients pass it on: `SIDE:CHANGE`, or `SIDE:CHANGE.INDEX`."""
        index = "" if self.index is None else f".{self.index}"
        return f"{self.side or ''}:{self.change}{index}".removeprefix(":")

    @property
    def whole(self) -> int:
        """Return the newest change of which nothing is left."""
        return self.change if self.index is None else self.change - 1

    def is_known(self, now: "After") -> bool:
        """Return False for one of another side, or of changes that have not happened. `now`: the newest here."""
        return self.side in {None, now.side} and self.change <= now.change
