"""What `export` and `import` have in common: the modules' tables, and the databases that they are in."""

from pathlib import Path

from quickcomm.kernel.copier.transfer import ModuleTables
from quickcomm.kernel.messaging.bus.home import first_row
from quickcomm.kernel.runtime.data_directory import DataDirectory


def exported() -> tuple[ModuleTables, ...]:
    """Return what each module exports, audio first."""
    # Heavy, and not needed for --help.
    from quickcomm.audio.module import Audio  # noqa: PLC0415
    from quickcomm.dashboard.module import Dashboard  # noqa: PLC0415
    from quickcomm.intelligence.module import Intelligence  # noqa: PLC0415

    return (Audio.exported(), Intelligence.exported(), Dashboard.exported())


def addresses(directory: DataDirectory) -> dict[str, str]:
    """Return the databases that settings give to services, by their modules."""
    from quickcomm.dashboard.ports import DashboardSettings  # noqa: PLC0415 - not needed for --help
    from quickcomm.intelligence.model.settings import StoreSettings  # noqa: PLC0415
    from quickcomm.operate.settings import load_settings  # noqa: PLC0415

    settings = load_settings(directory.path)
    urls = {
        "dashboard": settings.of(DashboardSettings).database_url,
        "intelligence": settings.of(StoreSettings).database_url,
    }
    return {module: url for module, url in urls.items() if url is not None}


def places(directory: DataDirectory) -> dict[str, Path | str]:
    """Return where a site that has no store keeps the tables of each module, or will, by its settings.

    What services have elsewhere goes there; but all of it to `serve` as long as that has cards: `up` copies them later.
    """
    found: dict[str, Path | str] = dict.fromkeys(("audio", "intelligence", "dashboard"), directory.database)
    if first_row(directory.database, "dashboard_utterances") is not None:
        return found
    elsewhere = addresses(directory)
    if elsewhere or directory.dashboard.path.is_dir():
        found["dashboard"] = directory.dashboard.database
    return found | elsewhere
