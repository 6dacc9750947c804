"""Writes the page "The results, side by side" from committed results of benchmarks.

`python -m tools.side_by_side > docs/results-side-by-side.md`. What was claimed elsewhere, and what is said of it, is in
`benchmarks/results/claims.toml`; figures come from the JSON files beside it. Each of these quotes the document that
tells of the run, so that no figure is on the page that no run has given.
"""

import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Final, Literal

import msgspec

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = Path("benchmarks/results")
PAGE: Final = Path("docs/results-side-by-side.md")
HEAD: Final = """\
# The results, side by side

For readers who know the published case of such a split, and ask what of it holds here. Each claim stands beside what
QuickComm gives, with the command that gives it. The page is made from `benchmarks/results/` by
`python -m tools.side_by_side`; a test fails where it is not up to date.

| kind | means |
|---|---|
| measured | a run of the product on a real machine |
| simulated | a run of `quickcomm simulate`: no sound was heard |
| computed | by `quickcomm plan`, on paper, from unit costs and a price list |

"""
VERDICTS: Final = {
    "reached": "reached",
    "not reached": "**not reached**",
    "otherwise": "measured otherwise",
}


class Result(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run. `told_in`: the document that tells of it, in which each of `quotes` stands. `noted`: when it was told."""

    kind: Literal["measured", "simulated", "computed"]
    machine: str
    noted: str
    command: str
    told_in: str
    quotes: tuple[str, ...]
    figures: dict[str, int | float]


class Claim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    said: str
    verdict: Literal["reached", "not reached", "otherwise"]
    ours: str
    results: tuple[str, ...]


def results_in(root: Path) -> dict[str, Result]:
    """Return the committed results by name."""
    found = sorted((root / RESULTS).glob("*.json"))
    return {path.stem: msgspec.json.decode(path.read_bytes(), type=Result) for path in found}


def claims_in(root: Path) -> list[Claim]:
    text = (root / RESULTS / "claims.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text)["claim"], list[Claim])


def page(root: Path = ROOT) -> str:
    """Return the page. Raises `KeyError` for a result, `AttributeError` for a figure, that is not there."""
    results, claims = results_in(root), claims_in(root)
    return HEAD + "\n".join((*_summary(claims), *(line for each in claims for line in _claim(each, results)))) + "\n"


def _summary(claims: list[Claim]) -> Iterator[str]:
    yield "| published | here |"
    yield "|---|---|"
    for claim in claims:
        yield f"| {claim.said} | {VERDICTS[claim.verdict]} |"


def _claim(claim: Claim, results: Mapping[str, Result]) -> Iterator[str]:
    named = {name: results[name] for name in claim.results}
    figures = {name: SimpleNamespace(**each.figures) for name, each in named.items()}
    yield f"\n## {claim.said}\n"
    yield f"**{claim.verdict.capitalize()}.** {claim.ours.strip().format(**figures)}\n"
    yield "| kind | command | machine | noted | told in |"
    yield "|---|---|---|---|---|"
    for each in named.values():
        told = f"[{Path(each.told_in).stem}]({Path(each.told_in).name})"
        yield f"| {each.kind} | `{each.command}` | {each.machine} | {each.noted} | {told} |"


if __name__ == "__main__":
    sys.stdout.write(page())
