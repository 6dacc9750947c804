"""How many examples a property test tries: all it names, or a few in the fast tier (`make test-fast`).

No example has a deadline: how long one takes says more about the machine than about the code.
"""

from typing import Any, Final

from hypothesis import settings

FAST: Final = "fast"
FEW: Final = 12


def register_profiles() -> None:
    """Register the profiles; `--hypothesis-profile=fast` chooses the one with few examples."""
    settings.register_profile("all", deadline=None)
    settings.register_profile(FAST, deadline=None, max_examples=FEW)
    settings.load_profile("all")


def examples(count: int, **more: Any) -> settings:
    """Return Hypothesis settings for `count` examples, at most `FEW` of them in the fast tier."""
    few = settings.get_current_profile_name() == FAST
    return settings(max_examples=min(count, FEW) if few else count, **more)
