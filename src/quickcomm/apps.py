"""Which modules make which process, by deployment. A process of `quickcomm up` is added here, and nowhere else."""

from collections.abc import Mapping
from typing import Final

from quickcomm.audio.declaration import AUDIO
from quickcomm.dashboard.declaration import DASHBOARD
from quickcomm.intelligence.declaration import INTELLIGENCE
from quickcomm.kernel.runtime.declaration import App, asked_for, moving, service
from quickcomm.operations.declaration import OPERATIONS
from quickcomm.relay.declaration import RELAY
from quickcomm.traffic.declaration import TRAFFIC

MODULES: Final = (AUDIO, INTELLIGENCE, DASHBOARD)

MONOLITH: Final = App(
    name="monolith",
    modules=MODULES,
    command="serve",
    one_because="it keeps everything in one database, and is the only one that writes to it",
    home=".",
    operates=True,
    also=tuple(module.history for module in MODULES if module.history),
    side="monolith",
    inside=(OPERATIONS,),
)
TRAFFIC_APP: Final = asked_for(service(TRAFFIC))
"""The migration controller, which runs beside a monolith."""
RELAY_APP: Final = service(RELAY)
"""The session relay, before audio. Started last, and so stopped first: what it holds still gets through."""
OPERATIONS_APP: Final = service(OPERATIONS)
"""The executor of operations, in a process that no migration retires. Stopped early: the others still answer it."""
DEPLOYMENTS: Final[Mapping[str, tuple[App, ...]]] = {
    "monolith": (
        MONOLITH,
        moving(DASHBOARD),
        moving(INTELLIGENCE),
        moving(AUDIO),
        TRAFFIC_APP,
        OPERATIONS_APP,
        RELAY_APP,
    ),
    # In the order of starting. The dashboard is the last to stop, so that people see what comes of the last words.
    "services": (service(DASHBOARD), service(INTELLIGENCE), service(AUDIO), OPERATIONS_APP, RELAY_APP),
}
APPS: Final[Mapping[str, App]] = {app.name: app for apps in DEPLOYMENTS.values() for app in apps}
STREAMS: Final = tuple(dict.fromkeys(stream for module in MODULES for stream in (*module.publishes, *module.appends)))
