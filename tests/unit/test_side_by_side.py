"""The page "The results, side by side": up to date, and with no figure that no run has given."""

import re
from typing import Final

from tools.side_by_side import PAGE, ROOT, claims_in, page, results_in

UP_TO_DATE: Final = "run: python -m tools.side_by_side > docs/results-side-by-side.md"


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page(), UP_TO_DATE


def test_each_result_is_told_where_it_says() -> None:
    for name, result in results_in(ROOT).items():
        document = (ROOT / result.told_in).read_text(encoding="utf-8")
        assert result.command in document, (name, result.command)
        for quote in result.quotes:
            assert quote in document, (name, quote)


def test_each_figure_of_a_result_is_in_what_it_quotes() -> None:
    for name, result in results_in(ROOT).items():
        numbers = {float(each) for quote in result.quotes for each in re.findall(r"-?\d+(?:\.\d+)?", quote)}
        assert set(result.figures.values()) <= numbers, (name, set(result.figures.values()) - numbers)


def test_each_result_is_used_and_what_is_not_measured_says_so() -> None:
    used = {name for claim in claims_in(ROOT) for name in claim.results}
    assert used == set(results_in(ROOT))
    for name, result in results_in(ROOT).items():
        if result.kind != "measured":
            told = [claim.ours for claim in claims_in(ROOT) if f"{{{name}." in claim.ours]
            assert all("paper" in each or "simulated" in each for each in told), name
