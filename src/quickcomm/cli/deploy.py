"""`quickcomm deploy`: another release of a service takes its place on a running site; `release`: what this one is."""

import asyncio
import getpass
import json
import sys
from pathlib import Path
from typing import Any, BinaryIO, Final

import click
import msgspec

from quickcomm.cli.migrate import PER_CENT, POLL_S, asked, changed, module_argument, start_controller, why_option
from quickcomm.cli.migration_report import stage
from quickcomm.cli.options import json_option, server_option
from quickcomm.contracts.commands import InstallRelease
from quickcomm.contracts.migration import (
    DeployRelease,
    GetMigration,
    MigrationDone,
    MigrationStatus,
    ModuleMigration,
    RollBackMigration,
)
from quickcomm.contracts.routes import Side
from quickcomm.kernel.errors import ConfigurationError, QuickCommError

PYTHONS: Final = (".venv/bin/python", "bin/python", "venv/bin/python")
"""Paths of the interpreter in the directory of a release, the first that exists counts."""
SETTLED: Final = "retired"
GOES_ON: Final = frozenset({"migration.not_in_force", "migration.abandoned"})
"""Codes of errors after which the controller goes on: it takes back what does not come up."""


class TakenBackError(ConfigurationError):
    code = "deploy.taken_back"


@click.command("deploy")
@module_argument
@click.option(
    "--release",
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of the release: a checkout or an installation of QuickComm.",
)
@click.option(
    "--python",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Its interpreter [default: .venv/bin/python in the directory].",
)
@click.option("--rollback", is_flag=True, help="Take back the release that is on its way, at once.")
@click.option("--by-hand", is_flag=True, help="Stop in the shadow; go on with: quickcomm migrate step MODULE.")
@click.option(
    "--share",
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    help="Per cent of the conversations that it gets first [default: 1].",
)
@why_option
@server_option
@json_option
def deploy_command(module: str, data_dir: Path, why: str, **given: Any) -> None:
    """Have another release of MODULE take its place on a running site, as a canary, while people talk.

    The release is asked what it is, and refused where its messages do not fit to those of the site. Then it runs
    beside the service: in the shadow, with a share of the conversations (1, 5, 25, 50 %), with all of them. Each step
    is taken when its gate has passed; a breach takes it back. At the end the old process ends, and the release is
    what the site starts from then on. The command comes back then; exit status 1: it was refused, or taken back.
    """
    directory, rollback, as_json = given["directory"], given["rollback"], given["as_json"]
    if rollback == (directory is not None):
        raise click.UsageError("Give either --release DIR or --rollback.")
    if rollback:
        back = RollBackMigration(name=module, by=getpass.getuser(), why=why, release=True)
        _tell(asyncio.run(changed(data_dir, back, module)), as_json=as_json)
        return
    row = _installed(data_dir, module, directory, given["python"])
    start_controller(data_dir)
    request = DeployRelease(
        name=module,
        release=row["release"],
        by=getpass.getuser(),
        why=why,
        auto=not given["by_hand"],
        share=max(1, round(given["share"] * PER_CENT)) if given["share"] else 0,
    )
    asyncio.run(_followed(data_dir, request, row["side"], as_json=as_json))


@click.command("release")
@click.option("--fits", type=click.File("rb"), help="What another release told (--json): compare with that, and fail.")
@click.option("--module", default="", help="Of --fits: the module that is to run beside the other one's modules.")
@json_option
def release_command(fits: BinaryIO | None, module: str, *, as_json: bool) -> None:
    """Tell the version of this installation, the digest of its files, and what its services say to each other.

    With --fits: whether MODULE of this one and the other modules of another release understand each other's messages;
    exit status 1 where they do not. It is what `quickcomm deploy` asks before anything serves.
    """
    from quickcomm.operate.fitting import misfits  # noqa: PLC0415 - loads all declarations
    from quickcomm.operate.release import Told, own  # noqa: PLC0415 - as above

    told = own()
    if fits is not None:
        if not module:
            raise click.UsageError("Say which module is to run beside those of the other release: --module")
        other = msgspec.json.decode(fits.read(), type=Told)
        others = dict.fromkeys((*other.modules, *(each.module for each in other.requests.values())), other)
        found = misfits(module, told, others)
        for why in found:
            click.echo(why)
        click.echo(f"{module} of {told.name} {'does not fit' if found else 'fits'} to {other.name}.", err=bool(found))
        sys.exit(1 if found else 0)
    if as_json:
        click.echo(msgspec.json.encode(told))
        return
    click.echo(f"{told.name} ({told.package})")
    click.echo(f"    digest {told.digest}")
    click.echo(f"    {len(told.streams)} streams, {len(told.requests)} requests between services")


# -- inside -----------------------------------------------------------------------------------------------------------


def _installed(data_dir: Path, module: str, directory: Path, python: Path | None) -> dict[str, Any]:
    from quickcomm.operate.up.client import tell  # noqa: PLC0415 - seldom needed

    directory = directory.absolute()
    found = python or next((directory / each for each in PYTHONS if (directory / each).is_file()), None)
    if found is None:
        raise ConfigurationError(
            f"{directory} has no interpreter ({', '.join(PYTHONS)}). Make one there, or name one: --python"
        )
    [row] = tell(data_dir, InstallRelease(name=module, directory=str(directory), python=str(found.absolute())))
    return row


async def _followed(data_dir: Path, request: DeployRelease, side: Side, *, as_json: bool) -> None:
    """Ask for a release, and follow it to its end. Raises `TakenBackError`, and what the controller refuses."""
    try:
        _tell(await changed(data_dir, request, request.name), as_json=as_json)
    except QuickCommError as error:
        if error.code not in GOES_ON:
            raise
    else:
        if not request.auto:
            return
    _tell(await _until_settled(data_dir, request.name, side, as_json=as_json), as_json=as_json)


async def _until_settled(data_dir: Path, name: str, side: Side, *, as_json: bool) -> dict[str, Any]:
    """Return what is reached once the release is all there is. Raises `TakenBackError`."""
    shown = ""
    while True:
        [row] = await asked(data_dir, GetMigration(entries=1))
        status = msgspec.convert(row, MigrationStatus)
        module = next(each for each in status.modules if each.name == name)
        if side not in {module.candidate, module.base} or module.goal == module.base:
            why = module.why or next((each.why for each in status.audit if each.name == name), "")
            raise TakenBackError(f"{name}: {side} was taken back. {why or 'See: quickcomm migrate history'}")
        if module.mode == SETTLED and module.candidate == side and not module.change:
            return msgspec.to_builtins(_done(status.version, module)) | {"side": side}  # type: ignore[no-any-return]
        if (now := _words(module)) != shown and not as_json:
            shown = now
            click.echo(f"{name}: {now} …", err=True)
        await asyncio.sleep(POLL_S)


def _words(module: ModuleMigration) -> str:
    if module.change:
        return module.change
    return f"{stage(module.mode, module.weight)}, {module.candidate} is compared with {module.base}"


def _done(version: int, module: ModuleMigration) -> MigrationDone:
    return MigrationDone(
        name=module.name,
        mode=module.mode,
        weight=module.weight,
        decides=module.decides,
        version=version,
        seconds=0.0,
    )


def _tell(row: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        return
    done = msgspec.convert(row, MigrationDone)
    reached = f"{stage(done.mode, done.weight)}, {done.decides} decides"
    took = f", {done.seconds:.1f} s" if done.seconds else ""
    click.echo(f"{done.name}: {reached} (version {done.version}{took}).")
