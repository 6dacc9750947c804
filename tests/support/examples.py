"""How many examples a property test tries: all it names, some in `make test`, or a few in `make test-fast`.

No example has a deadline: how long one takes says more about the machine than about the code.
"""

from typing import Any, Final

from hypothesis import settings

AT_MOST: Final = {"fast": 12, "some": 60}
"""By profile; others try all."""


def register_profiles() -> None:
    """Register the profiles; `--hypothesis-profile=some` chooses one with fewer examples."""
    settings.register_profile("all", deadline=None)
    for name, most in AT_MOST.items():
        settings.register_profile(name, deadline=None, max_examples=most)
    settings.load_profile("all")


def examples(count: int, **more: Any) -> settings:
    """Return Hypothesis settings for `count` examples, or for as many as the profile tries at most."""
    most = AT_MOST.get(settings.get_current_profile_name(), count)
    return settings(max_examples=min(count, most), **more)
