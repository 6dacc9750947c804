"""Whether the monolith's process is left by all of its modules: then the site is services, and does without it."""

from typing import Final

from quickcomm.apps import MONOLITH
from quickcomm.contracts.routes import MONOLITH as MONOLITH_SIDE
from quickcomm.contracts.routes import Routes
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.operate.backup_file import CARDS_COPIED, RESULTS_COPIED, lacks_copy
from quickcomm.topology.model.program import ScaleError

SHAPE: Final = "monolith"


def still_there(routes: Routes) -> list[str]:
    """Return the modules that are not retired in the monolith."""
    return [module.name for module in MONOLITH.modules if routes.of(module.name).runs(MONOLITH_SIDE)]


def is_left(routes: Routes, directory: DataDirectory) -> bool:
    """Return True where the monolith is not needed: by the routes, and by its own database, which has become stale.

    So routes of another site, or of a directory whose services were deleted, do not keep the only complete data away.
    """
    stale = all(lacks_copy(directory.database, marks) for marks in (CARDS_COPIED, RESULTS_COPIED))
    return stale and not still_there(routes)


def check_left(module: str, shape: str, routes: Routes) -> None:
    """Raise `ScaleError` where this is the monolith, and something of the site is still in it."""
    found = still_there(routes)
    if module == MONOLITH.name and shape == SHAPE and found:
        raise ScaleError(
            f"The monolith has {', '.join(found)}. Its process ends by itself once all are retired "
            "(quickcomm migrate). To stop everything: quickcomm down"
        )
