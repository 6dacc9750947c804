"""`quickcomm trust`: the keys by which services know each other, and what each of them may do in the store."""

from pathlib import Path

import click

from quickcomm.cli.options import json_option, print_rows, server_option
from quickcomm.contracts.commands import RotateKeys
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.operate.up.client import tell


@click.group("trust")
def trust_group() -> None:
    """Keys of the services, and their rights in the store. See docs/from-one-process-to-services.md."""


@trust_group.command("rotate")
@click.option("--at-once", is_flag=True, help="Withdraw the old keys now: somebody else may have one.")
@server_option
@json_option
def trust_rotate(data_dir: Path, *, at_once: bool, as_json: bool) -> None:
    """Give every service a new key, while everything runs.

    What was signed with the old ones is good until it expires (a minute); with --at-once it is refused from now on.
    """
    rows = tell(data_dir, RotateKeys(at_once=at_once))
    print_rows(rows, as_json=as_json, columns=("service", "rotated"), empty="There is no service.")


@trust_group.command("keygen")
@click.argument("service")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the keys.")
def trust_keygen(service: str, out: Path) -> None:
    """Make a key for SERVICE, for sites that `quickcomm up` does not run.

    The file in OUT/private is its own, the one in OUT/public is for everybody.
    Done again, it makes a new one and retires the old one.
    """
    from quickcomm.apps import APPS  # noqa: PLC0415 - heavy
    from quickcomm.kernel.trust.directory import TrustDirectory, private_file, public_folder  # noqa: PLC0415 - heavy

    if service not in APPS:
        raise ConfigurationError(f"There is no service {service!r}. There are: {', '.join(sorted(APPS))}.")
    TrustDirectory(out).renew(service)
    click.echo(f"{private_file(out, service)}\n{public_folder(out) / f'{service}.jwks'}")


@trust_group.command("acl")
@click.option("--user", help="Only this one [default: all].")
@click.option(
    "--passwords",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with a file a user; what is missing is made. Without it you fill in the passwords.",
)
def trust_acl(user: str | None, passwords: Path | None) -> None:
    """Print the users of the store with all that they need and nothing else, as Valkey's `aclfile` has them.

    For a Valkey or Redis (7.2 or newer) that `quickcomm up --redis-url` uses.
    """
    from quickcomm.operate.up.access import Passwords, acl, line, users  # noqa: PLC0415 - heavy

    known = Passwords(passwords).ensure() if passwords else {name: f">PASSWORD-OF-{name.upper()}" for name in users()}
    if user is not None and user not in known:
        raise click.BadParameter(f"There are: {', '.join(users())}.", param_hint="--user")
    click.echo(acl(known) if user is None else line(user, known[user]), nl=user is not None)
