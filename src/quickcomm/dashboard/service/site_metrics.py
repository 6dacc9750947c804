"""The metrics of the whole site in one answer: those of every other process are asked for."""

import structlog

from quickcomm.contracts.health import ReadMetrics
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.rpc import Rpc
from quickcomm.kernel.messaging.rpc.local import HERE

log = structlog.get_logger(__name__)


async def metrics_of_others(rpc: Rpc) -> dict[str, str]:
    """Return the metrics of the other processes, as text, by their names. One that does not answer is left out."""
    found = {}
    for name, reply in (await rpc.call_all(ReadMetrics())).items():
        if isinstance(reply, QuickCommError):
            log.warning("metrics.not_read", process=name, error=str(reply))
        elif name != HERE:
            found[name] = reply.text
    return found
