"""Erasures as REST shows them."""

import msgspec

from quickcomm.contracts.erasing import Erased, ErasureKind, ErasureStatus, ErasureView, KeptCopy
from quickcomm.dashboard.model.views import rfc3339


class ErasureStand(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, and how its erasure stands: ids and figures, and no word of what was said.

    `status` "found": nothing was started, and there is no `erasure_id`. `conversations`: that go as a whole.
    `utterances`: how many go one by one, in so many `touched` conversations. `operation_id`, `step`, `why`: of the
    operation that erases, of its next step, and its last error. `copies`: backups, which are not changed.
    """

    erasure_id: str | None
    kind: ErasureKind
    by: str
    status: ErasureStatus
    conversations: tuple[str, ...]
    utterances: int
    touched: int
    asked_at: str
    done_at: str | None
    operation_id: str
    step: str
    why: str
    erased: tuple[Erased, ...]
    copies: tuple[KeptCopy, ...]


def erasure_stand(view: ErasureView) -> ErasureStand:
    return ErasureStand(
        erasure_id=view.id or None,
        kind=view.kind,
        by=view.by,
        status=view.status,
        conversations=view.conversations,
        utterances=view.utterances,
        touched=view.touched,
        asked_at=rfc3339(view.asked_ns),
        done_at=rfc3339(view.done_ns) if view.done_ns else None,
        operation_id=view.operation,
        step=view.step,
        why=view.why,
        erased=view.erased,
        copies=view.copies,
    )
