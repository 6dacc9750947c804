"""Options that several commands share."""

import functools
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from quickcomm.kernel.runtime.data_directory import default_data_dir

NS = "_ns"
"""End of the names of columns with nanoseconds since the epoch."""
F = TypeVar("F", bound=Callable[..., Any])


def data_dir_option(function: F) -> F:
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        default=default_data_dir,
        show_default="the user's data directory",
        help="Where the site keeps everything [env: QUICKCOMM_DATA_DIR].",
    )(function)


def server_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Say which running server a command is about; without an option, the one that runs. Gives `data_dir`."""

    @functools.wraps(function)
    def command(*args: Any, data_dir: Path | None, url: str | None, **given: Any) -> Any:
        from quickcomm.operate.servers import find_data_dir  # noqa: PLC0415 - services run without it

        return function(*args, data_dir=find_data_dir(data_dir, url), **given)

    command = click.option(
        "--url", metavar="URL", help="The server at this address on this machine, instead of --data-dir."
    )(command)
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="QUICKCOMM_DATA_DIR",
        show_default="that of the one running server, else the user's data directory",
        help="Where the site keeps everything [env: QUICKCOMM_DATA_DIR].",
    )(command)


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")(function)


def print_rows(rows: Sequence[dict[str, Any]], *, as_json: bool, columns: Sequence[str], empty: str) -> None:
    """Print a table for people, with times of day in place of nanoseconds, or one JSON object a line."""
    if as_json:
        for row in rows:
            click.echo(json.dumps(row, ensure_ascii=False))
        return
    if not rows:
        click.echo(empty)
        return
    cells = [[_cell(row.get(column), column) for column in columns] for row in rows]
    columns = [column.removesuffix(NS) for column in columns]
    widths = [max(len(column), *(len(line[at]) for line in cells)) for at, column in enumerate(columns)]
    click.echo("  ".join(column.ljust(width) for column, width in zip(columns, widths, strict=True)).rstrip())
    for line in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any, column: str) -> str:
    if value is None:
        return "-"
    if column.endswith(NS):
        return datetime.fromtimestamp(value / 10**9).astimezone().isoformat(" ", "seconds") if value else "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
