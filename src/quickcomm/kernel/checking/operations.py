"""Operations over several modules that are neither done nor taken back, and get no further."""

from collections.abc import Iterable
from typing import Final

from quickcomm.contracts.saga import OperationView
from quickcomm.kernel.checking.compare import Finding

STUCK_NS: Final = 120 * 10**9
"""Steps are tried again at least every ten seconds; after so long the executor or its peer is missing."""


def of_operations(found: Iterable[OperationView], now_ns: int) -> list[Finding]:
    """Return a finding for each that is parked, or has not got on for minutes."""
    return [
        Finding(
            code="operation.parked" if each.status == "parked" else "operation.stuck",
            site=each.site,
            id=each.id,
            since_ns=each.changed_ns,
            event=each.step,
            detail=f"{each.name} of {each.subject}: {each.why or each.status}",
            repair=f"quickcomm sagas {'resume' if each.status == 'parked' else 'show'} {each.id}",
        )
        for each in found
        if each.status == "parked" or now_ns - each.changed_ns > STUCK_NS
    ]
