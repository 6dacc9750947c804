"""A chart of what monolith and services cost: machines, and cost over load. Needs matplotlib, an optional extra."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from quickcomm.capacity.model.comparison import DEPLOYMENTS, Comparison, Side, Site
from quickcomm.capacity.model.fleet import NoFleetError
from quickcomm.kernel.errors import ConfigurationError, InvalidInputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS: Final = (".svg", ".png")
_FACTORS: Final = tuple(2 ** (step / 2) for step in range(-4, 5))
"""Of the load, from a quarter to four times."""
_COLOURS: Final = {"monolith": "#8a5a2b", "services": "#1f6f8b"}
_TOKENS: Final = "#b7b7b7"
_NUMBER: Final = "{x:,.0f}"
_SALT: Final = "quickcomm"
"""Of ids within an SVG, which would be random."""


def draw(path: Path, title: str, site: Site, compared: Comparison) -> None:
    """Write SVG or PNG, as the name ends; the same figure always gives the same file.

    Raises `InvalidInputError` for another ending, `ConfigurationError` where matplotlib is missing.
    """
    if path.suffix.lower() not in FORMATS:
        raise InvalidInputError(f"{path}: a chart is written as {' or '.join(FORMATS)}.")
    try:
        from matplotlib import rc_context  # noqa: PLC0415 - an optional extra
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        how = "pip install 'quickcomm[plan]', in a checkout: make install EXTRAS=plan"
        raise ConfigurationError(f"A chart needs matplotlib: {how}.") from error
    with rc_context({"svg.hashsalt": _SALT, "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9, 4), layout="constrained")
        bars, lines = figure.subplots(1, 2)
        figure.suptitle(title)
        _draw_sides(bars, site.prices.currency, (compared.monolith, compared.services))
        _draw_loads(lines, site)
        figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix.lower() == ".svg" else {"Software": None})


def _draw_sides(axes: "Axes", currency: str, sides: Sequence[Side]) -> None:
    for place, (deployment, side) in enumerate(zip(DEPLOYMENTS, sides, strict=True)):
        below = 0.0
        for pool in side.fleet.pools:
            label = f"{pool.hosts:.0f} {pool.machine.name}"
            axes.bar(place, pool.month, bottom=below, color=_COLOURS[deployment], edgecolor="white")
            axes.text(place, below + pool.month / 2, label, ha="center", va="center", color="white")
            below += pool.month
        if side.tokens:
            axes.bar(place, side.tokens, bottom=below, color=_TOKENS, edgecolor="white")
            axes.text(place, below + side.tokens / 2, "tokens", ha="center", va="center")
    axes.set_xticks(range(len(DEPLOYMENTS)), DEPLOYMENTS)
    axes.set_title("This load")
    axes.set_ylabel(f"{currency} a month")
    axes.yaxis.set_major_formatter(_NUMBER)


def _draw_loads(axes: "Axes", site: Site) -> None:
    for deployment in DEPLOYMENTS:
        points: list[tuple[float, float]] = []
        for factor in _FACTORS:
            try:
                points.append((site.demand.conversations * factor, site.scaled(factor).cost(deployment)))
            except NoFleetError:
                break
        style = "--" if deployment == "services" else "-"
        axes.plot(*zip(*points, strict=True), style, marker="o", color=_COLOURS[deployment], label=deployment)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(_NUMBER)
    axes.yaxis.set_major_formatter(_NUMBER)
    axes.set_title("Other loads of the same kind")
    axes.set_xlabel("conversations at the busiest time")
    axes.legend()
