"""When something was said: sound that was held up keeps its own time, and nothing is dated into the future."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcomm.audio.service.arrivals import MAX_ARRIVALS, NS, Arrivals

RATE: Final = 16_000
BEGAN: Final = 1_700_000_000 * NS
PIECE_S: Final = 0.1


class Stream:
    """Sound that arrives in pieces of 100 ms. Times are seconds since the conversation began."""

    def __init__(self, now: float = 0.0, received: float = 0.0, origin_s: float | None = None) -> None:
        self.now = now
        self.received = received
        origin_ns = 0 if origin_s is None else BEGAN + round(origin_s * NS)
        self.arrivals = Arrivals(RATE, BEGAN + round(now * NS), round(received * RATE), origin_ns)

    def comes(self, seconds: float, speed: float = 1.0) -> None:
        for _ in range(round(seconds / PIECE_S)):
            self.now += PIECE_S / speed
            self.received += PIECE_S
            self.arrivals.add(round(self.received * RATE), BEGAN + round(self.now * NS))

    def said(self, at_s: float) -> float:
        """When the sample at `at_s` of the sound was said."""
        return (self.arrivals.said(round(at_s * RATE), 0) - BEGAN) / NS

    def came(self, at_s: float) -> float:
        return (self.arrivals.at(round(at_s * RATE), 0) - BEGAN) / NS


def test_sound_in_real_time_has_the_time_of_its_arrival() -> None:
    stream = Stream()
    stream.comes(20)
    assert stream.said(5) == stream.came(5) == pytest.approx(5)


def test_a_burst_after_a_cut_is_dated_by_where_it_catches_up() -> None:
    stream = Stream()
    stream.comes(5)
    stream.now = 95  # nothing comes for 90 s
    stream.comes(90, speed=300)
    stream.comes(3)
    assert stream.said(10) == pytest.approx(10, abs=0.5)
    assert stream.said(90) == pytest.approx(90, abs=0.5)
    assert stream.said(97) == stream.came(97)


def test_what_is_published_before_the_burst_is_over_is_dated_by_the_steady_stream_before() -> None:
    stream = Stream()
    stream.comes(60)
    stream.now = 150
    stream.comes(20, speed=10)
    assert stream.said(70) == pytest.approx(70, abs=0.5)
    assert stream.said(50) == stream.came(50)


def test_that_survives_a_restart() -> None:
    before = Stream()
    before.comes(60)
    origin_s = (before.arrivals.steady_origin - BEGAN) / NS
    assert origin_s == pytest.approx(0, abs=0.01)
    after = Stream(150.0, 60.0, origin_s)
    after.comes(20, speed=10)
    assert after.arrivals.steady_origin == before.arrivals.steady_origin
    assert after.said(70) == pytest.approx(70, abs=0.5)


def test_another_process_that_knows_nothing_of_the_stream_dates_it_by_its_arrival_and_the_next_burst_well() -> None:
    stream = Stream(1_000.0, 400.0)
    stream.comes(10, speed=100)
    assert stream.said(405) == stream.came(405)
    stream.comes(40)
    assert stream.said(430) == stream.came(430)
    stream.now += 40
    stream.comes(40, speed=200)
    stream.comes(1)
    assert stream.said(460) == pytest.approx(1_000.1 + 50, abs=0.5)


def test_the_clock_of_a_sound_card_may_go_slow() -> None:
    stream = Stream()
    for _ in range(60):
        stream.comes(60, speed=0.999)
    assert (stream.arrivals.steady_origin - BEGAN) / NS == pytest.approx(3.6, abs=0.1)


def test_a_pause_without_sound_is_no_delay() -> None:
    stream = Stream()
    stream.comes(4)
    stream.now += 600
    stream.comes(4)
    assert stream.said(6) == stream.came(6) == pytest.approx(606)
    stream.now += 30
    stream.comes(4, speed=40)  # a transmission that was kept until the key was let go
    assert stream.said(8.1) == pytest.approx(638.1 - 4, abs=0.2)
    assert stream.arrivals.steady_origin == 0


def test_the_first_pause_of_a_stream_that_was_steady_is_no_delay_either() -> None:
    stream = Stream()
    stream.comes(60)
    stream.now += 600
    stream.comes(5)
    assert stream.said(62) == stream.came(62) == pytest.approx(662)
    stream.comes(70)
    assert stream.arrivals.steady_origin == 0
    assert stream.said(130) == stream.came(130)


def test_a_file_at_full_speed_has_the_time_of_its_arrival() -> None:
    stream = Stream()
    stream.comes(600, speed=200)
    for at in (1, 300, 599):
        assert stream.said(at) == stream.came(at) == pytest.approx(at / 200)
    assert stream.arrivals.steady_origin == 0


def test_a_client_may_say_when_it_captured_its_sound() -> None:
    stream = Stream()
    stream.comes(5)
    stream.now = 95
    stream.arrivals.connected()
    stream.arrivals.tell(5 * RATE, BEGAN + 10 * NS, BEGAN + 95 * NS)
    stream.comes(4, speed=10)
    stream.arrivals.tell(9 * RATE, BEGAN + 60 * NS, BEGAN + round(stream.now * NS))
    stream.comes(4, speed=10)
    stream.arrivals.tell(13 * RATE, BEGAN + round(stream.now * NS), BEGAN + round(stream.now * NS))
    stream.comes(4)
    assert stream.said(3) == stream.came(3)
    assert stream.said(6) == pytest.approx(11)
    assert stream.said(10) == pytest.approx(61)
    assert stream.said(15) == stream.came(15)


def test_sound_that_comes_before_it_is_said_to_have_been_captured_is_dated_by_its_arrival() -> None:
    stream = Stream()
    stream.arrivals.tell(0, BEGAN + 3_600 * NS, BEGAN)
    stream.comes(20, speed=100)
    assert stream.said(10) == stream.came(10)


def test_times_of_long_ago_are_not_taken() -> None:
    stream = Stream()
    stream.arrivals.tell(0, 1_700_000_000, BEGAN)  # seconds, as milliseconds
    stream.comes(5)
    assert stream.said(3) == stream.came(3)


@given(
    parts=st.lists(
        st.tuples(st.floats(0, 120), st.floats(0.1, 20), st.sampled_from([0.5, 1.0, 2.0, 50.0, 1_000.0])), max_size=8
    ),
    told=st.integers(-100, 200),
)
def test_nothing_is_dated_into_the_future(parts: list[tuple[float, float, float]], told: int) -> None:
    stream = Stream()
    for pause, seconds, speed in parts:
        stream.now += pause
        if told > 0:
            now = BEGAN + round(stream.now * NS)
            stream.arrivals.tell(round(stream.received * RATE), now - told * NS, now)
        stream.comes(seconds, speed)
    for at in range(1, int(stream.received)):
        assert stream.said(at) <= stream.came(at) + 1e-6


def test_it_is_bounded() -> None:
    stream = Stream()
    for _ in range(MAX_ARRIVALS + 500):
        stream.now += 1
        stream.comes(PIECE_S)
    assert len(stream.arrivals._starts) <= MAX_ARRIVALS
    stream.arrivals.forget(round(stream.received * RATE))
    assert len(stream.arrivals._starts) == 1
