"""What intelligence exports to another site: prompts, costs, results, the backlog, notes for summaries, tombstones.

Not the answers of the model that it keeps for a while: they are asked for again.
"""

from typing import Final

from sqlalchemy import Connection

from quickcomm.intelligence.adapters.history import MARKS, TABLES, write
from quickcomm.intelligence.adapters.sql_cache import answers
from quickcomm.intelligence.adapters.sql_prompts import audit, deployments
from quickcomm.intelligence.adapters.sql_results import MIGRATIONS, erased
from quickcomm.intelligence.adapters.sql_usage import ADD_DAY, days
from quickcomm.kernel.copier.copier import CopiedTable, Values
from quickcomm.kernel.copier.transfer import ModuleTables
from quickcomm.kernel.erasing.tombstones import KEY, add
from quickcomm.kernel.messaging.bus.sql_tables import messages


def _write(connection: Connection, name: str, rows: list[Values]) -> None:
    if name == erased.name:
        add(connection, erased, rows)
    elif name == days.name:
        connection.execute(ADD_DAY.on(connection), rows)  # both sites' costs of a day are one sum
    else:
        write(connection, name, rows)


EXPORTED: Final = ModuleTables(
    "intelligence",
    MIGRATIONS,
    (
        CopiedTable(erased.name, erased, KEY),
        *(
            table._replace(repeatable=table.repeatable and table.rows is not days)
            for table in TABLES
            if table.rows is not answers and table.rows is not messages
        ),
    ),
    _write,
    kept=frozenset({deployments.name, audit.name}),
    copied=MARKS,
)
