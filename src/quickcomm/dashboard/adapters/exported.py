"""What the dashboard exports to another site: cards, tasks, decisions, conversations with summaries, tombstones."""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from quickcomm.dashboard.adapters.changed import renew_side
from quickcomm.dashboard.adapters.history import MARKS, TABLES, write_below
from quickcomm.dashboard.adapters.tables import erased
from quickcomm.kernel.copier.copier import CopiedTable, Values
from quickcomm.kernel.copier.transfer import ModuleTables
from quickcomm.kernel.erasing.tombstones import KEY, add

ERASED: Final = CopiedTable("erased", erased, KEY)


def _write(connection: Connection, name: str, rows: list[Values]) -> None:
    if name == ERASED.name:
        add(connection, erased, rows)
    else:
        write_below(connection, name, rows)


EXPORTED: Final = ModuleTables(
    "dashboard", Path(__file__).with_name("migrations"), (ERASED, *TABLES), _write, finish=renew_side, copied=MARKS
)
