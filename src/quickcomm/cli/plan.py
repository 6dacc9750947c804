"""`quickcomm plan`: what a site costs as copies of the monolith and as services."""

import json
from pathlib import Path
from typing import Any, Final

import click

from quickcomm.capacity.adapters.chart import draw
from quickcomm.capacity.adapters.samples import read_input, samples, write_samples
from quickcomm.capacity.model.comparison import Site, compare
from quickcomm.capacity.model.demand import MODEL_ON, Assumed, read_demand
from quickcomm.capacity.model.fleet import Rules
from quickcomm.capacity.model.load import Load, read_load
from quickcomm.capacity.model.prices import read_prices
from quickcomm.capacity.model.search import search
from quickcomm.capacity.model.units import read_units
from quickcomm.cli import plan_report
from quickcomm.cli.options import json_option

_SHARE: Final = click.FloatRange(min=0, max=1, min_open=True)


@click.command("plan")
@click.option("--load", "load_name", default="big-hotel", show_default=True, metavar="FILE|SAMPLE", help="A day.")
@click.option(
    "--prices",
    "prices_name",
    default="aws-us-east-1",
    show_default=True,
    metavar="FILE|SAMPLE",
    help="What machines and tokens cost.",
)
@click.option(
    "--units",
    "units_name",
    default="speech-on-cpu",
    show_default=True,
    metavar="FILE|SAMPLE",
    help="What a second of speech, an utterance, a page take: from `quickcomm bench units --json`.",
)
@click.option(
    "--model",
    "model_on",
    type=click.Choice(MODEL_ON),
    default="gpu",
    show_default=True,
    help="Where the language model runs: on a GPU in each copy of the monolith, and of intelligence; on GPUs that all "
    "copies share; behind an API, paid by tokens.",
)
@click.option(
    "--target", type=_SHARE, default=0.7, show_default=True, help="Highest utilisation at the busiest minute."
)
@click.option("--lost", type=_SHARE, default=0.9, show_default=True, help="The same with one machine of a pool lost.")
@click.option("--spare/--no-spare", default=True, show_default=True, help="One machine of each pool may be lost.")
@click.option(
    "--process-cores",
    type=click.FloatRange(min=0, min_open=True),
    default=4.0,
    show_default=True,
    help="The most cores that one process can use. Not measured above 2.",
)
@click.option("--elastic", is_flag=True, help="Machines are paid by the hour, as many as the hour needs.")
@click.option("--pages-each", is_flag=True, help="Each page is open at every copy of the monolith, not at one.")
@click.option("--search", "searching", is_flag=True, help="Look for kinds of sites where the published result holds.")
@click.option("--chart", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.svg|.png", help="Draw it, too.")
@click.option(
    "--write-samples", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Write all samples there."
)
@json_option
def plan_command(
    load_name: str, prices_name: str, units_name: str, *, chart: Path | None, as_json: bool, **options: Any
) -> None:
    """Say what a site costs as copies of the monolith and as services, and where the difference comes from.

    For the load of a day, a price list and unit costs, it finds the cheapest machines for both: whole copies of the
    monolith, each with all that its busiest module needs, against services on machines of their own or shared. Both
    have their edge and their store, keep utilisation below --target at the busiest minute, and stand the loss of a
    machine in each pool.

    It says how much services save at the same load, and how many times the conversations they have at the same cost.
    The answer may be 1.0: then there is no reason of cost to split.

    All samples are samples. Write them out, put your own figures in, and run it again:

    \b
      quickcomm plan                                      a big hotel, on sample prices
      quickcomm plan --load call-centre --model tokens    1,000 calls, the model behind an API
      quickcomm plan --write-samples mine                 loads, prices, unit costs as files
      quickcomm plan --load mine/loads/resort.toml --prices mine/prices/aws-us-east-1.toml --chart cost.svg
      quickcomm plan --search                             where 3.2 times and -35 % hold; takes a minute

    See docs/what-will-it-cost.md.
    """  # noqa: D301 - click wants the character itself
    if options["write_samples"] is not None:
        for path in write_samples(options["write_samples"]):
            click.echo(str(path))
        return
    load = read_load(read_input("loads", load_name))
    site = _site(load, prices_name, units_name, options)
    if options["searching"]:
        _search(load, site, units_name, as_json=as_json)
        return
    compared = compare(site)
    if as_json:
        click.echo(json.dumps(plan_report.as_object(load, site, compared), ensure_ascii=False))
    else:
        for line in plan_report.lines(load, site, compared):
            click.echo(line)
    if chart is not None:
        draw(chart, f"{load.name}: {site.prices.name}, {site.prices.date}", site, compared)


def _site(load: Load, prices_name: str, units_name: str, options: dict[str, Any]) -> Site:
    if options["lost"] < options["target"]:
        raise click.BadParameter("must not be below --target.", param_hint="--lost")
    rules = {name: options[name] for name in ("target", "lost", "process_cores", "spare", "elastic")}
    return Site(
        demand=read_demand(load),
        units=read_units(read_input("units", units_name)),
        prices=read_prices(read_input("prices", prices_name)),
        rules=Rules(**rules),
        assumed=Assumed(model_on=options["model_on"], pages_each=options["pages_each"]),
    )


def _search(load: Load, site: Site, units_name: str, *, as_json: bool) -> None:
    """Look at both engines of the samples, or at the user's own unit costs alone."""
    known = samples("units")
    engines = {name: read_units(file.read_bytes()) for name, file in known.items()}
    if units_name not in known:
        engines = {Path(units_name).stem: site.units}
    outcomes = list(search(load, engines, site.prices, site.rules))
    if as_json:
        for outcome in outcomes:
            click.echo(json.dumps(plan_report.outcome_as_object(outcome), ensure_ascii=False))
        return
    for line in plan_report.search_lines(load, outcomes):
        click.echo(line)
