"""The latency receipt: time spent in each stage, from the last speech sample to the push."""

import msgspec


class Latency(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Milliseconds a stage took. `endpoint` is the silence waited for before the utterance was called complete.

    `total` runs from the arrival of the last speech sample to the push to the browser; where the sound was held up on
    its way (a radio that could not reach the server), from when it was said. A stage that has not happened (yet) is
    None.
    """

    endpoint: float | None = None
    stt: float | None = None
    publish: float | None = None
    queue: float | None = None
    classify: float | None = None
    store: float | None = None
    push: float | None = None
    total: float | None = None
    sides: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    """During a migration, by module: the side that served its stages (`contracts/routes.py`)."""

    @property
    def served_by(self) -> dict[str, str]:
        """Return `sides`; empty where it is unset."""
        return {} if self.sides is msgspec.UNSET else self.sides
