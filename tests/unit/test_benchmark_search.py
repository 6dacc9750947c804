"""How benchmarks find the most that a side can bear: few measurements, and honest about what wavers."""

import random

import pytest
from benchmarks.most import Search


def found(search: Search, capacity: float, noise: float = 0.0, seed: int = 1) -> dict[int, int]:
    """Measure until it is found; how often each number was."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated
    measured: dict[int, int] = {}
    while (number := search.next()) is not None:
        measured[number] = measured.get(number, 0) + 1
        search.note(number, number <= capacity + chance.uniform(-noise, noise))
    return measured


@pytest.mark.parametrize(("capacity", "most"), [(53, 52), (48, 48), (15, 12), (3, 0), (200, 200), (47.9, 44)])
def test_without_noise_it_is_found_to_the_finest_step(capacity: float, most: int) -> None:
    search = Search(first=16, step=16, finest=4, most_runs=100)
    measured = found(search, capacity)
    assert (search.surely, search.most, search.perhaps) == (most, most, most)
    assert set(measured.values()) == {2}
    assert search.next() is None


def test_where_two_do_not_agree_a_third_decides() -> None:
    search = Search(first=16, step=16, finest=16)
    for well in (True, False):
        assert search.next() == 16
        search.note(16, well)
    assert search.next() == 16
    search.note(16, well=True)
    assert search.next() == 32
    search.note(32, well=False)
    search.note(32, well=False)
    assert search.next() is None
    assert (search.surely, search.most, search.perhaps) == (0, 16, 16)


def test_the_noise_is_told() -> None:
    for seed in range(50):
        search = Search(first=16, step=16, finest=4, most_runs=100)
        found(search, capacity=50, noise=6, seed=seed)
        assert search.surely <= search.most <= search.perhaps
        assert 40 <= search.most <= 56
        assert search.perhaps <= 56


def test_it_ends_after_so_many_measurements() -> None:
    search = Search(first=16, step=16, finest=4, most_runs=5)
    assert sum(found(search, capacity=1_000).values()) == 5


def test_once_is_enough_for_a_trial() -> None:
    search = Search(first=8, step=8, finest=8, runs=1)
    assert found(search, capacity=20) == {8: 1, 16: 1, 24: 1}
    assert search.most == 16
