"""The side of a migration that this process is on: stamped into messages, spans and metrics while modules move.

One for a process, as tracing is; without a migration there is none, and nothing is stamped.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from quickcomm.contracts.routes import MONOLITH, SERVICE, Side, release_of

LABELS: Final[dict[str, str]] = {MONOLITH: "monolith", SERVICE: "services"}
"""By side: its value in spans and metrics, named as deployments are."""


def _nowhere() -> Side | None:
    return None


_look: Callable[[], Side | None] = _nowhere


def set_side(look: Callable[[], Side | None] | None) -> None:
    """Have `look` say on which side this process is; None while no module moves, and for `look` itself."""
    global _look  # noqa: PLW0603 - see above
    _look = look or _nowhere


def side_here() -> Side | None:
    """Return the side of this process; None while no module moves."""
    return _look()


def stamp() -> str | msgspec.UnsetType:
    """Return the side for a message that is made now; unset while no module moves."""
    return _look() or msgspec.UNSET


def label_of(side: str | None) -> str:
    """Return the value of the label `side`: of a release its side; empty without one, and for one that is not known."""
    if side is None:
        return ""
    return LABELS.get(side, side if release_of(side) else "")
