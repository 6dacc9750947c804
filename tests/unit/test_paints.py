"""Which of a page's reports of painting count."""

from quickcomm.dashboard.adapters.paints import JUST_NOW_S, MAX_CARDS, PaintReports
from quickcomm.kernel.clock import FakeClock


def test_only_what_was_pushed_to_this_page_counts_and_only_once() -> None:
    paints = PaintReports(FakeClock())
    assert not paints.counts("replayed")
    paints.pushed("live")
    assert paints.counts("live")
    assert not paints.counts("live")
    paints.pushed("live")
    assert not paints.counts("live"), "it was sent again"


def test_a_page_that_slept_says_nothing_of_how_fast_it_is() -> None:
    clock = FakeClock()
    paints = PaintReports(clock)
    paints.pushed("in time")
    paints.pushed("too late")
    clock.advance(JUST_NOW_S)
    assert paints.counts("in time")
    clock.advance(1)
    assert not paints.counts("too late")


def test_it_stays_bounded() -> None:
    paints = PaintReports(FakeClock())
    for number in range(MAX_CARDS + 1):
        paints.pushed(str(number))
    assert not paints.counts("0")
    assert paints.counts("1")
