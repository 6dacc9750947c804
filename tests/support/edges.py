"""For tests of what comes in from outside: it is understood, or refused by the error that is meant for that."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=Exception)


def tried(function: Callable[[], T], refusal: type[E]) -> tuple[T | None, E | None]:
    """What came of it, or how it was refused; any other exception is nobody's to catch."""
    try:
        return function(), None
    except refusal as error:
        return None, error
