"""Settings of tracing, and the latency budgets: the one place that says how long each stage may take."""

from typing import Annotated

import msgspec


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Milliseconds that each stage and hop may take for 95 of 100 utterances. Without a language model they sum to 1 s.

    Named as in `Latency`, and `painted`. `queue` is the hop from audio to intelligence, `store` holds the one from
    there to the dashboard, `push` is the one to the browser. `total` runs to the push, as in the receipt.
    """

    endpoint: float = 600
    stt: float = 200
    publish: float = 15
    queue: float = 20
    classify: float = 60
    store: float = 35
    push: float = 20
    painted: float = 50
    total: float = 950


def budget_with_model(budget: Budget, model_s: float) -> Budget:
    """With a language model an utterance may wait for it as long as it is allowed to."""
    classify = max(budget.classify, model_s * 1000)
    return msgspec.structs.replace(budget, classify=classify, total=budget.total - budget.classify + classify)


class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where traces go, and which. Metrics count every utterance whatever is said here."""

    otlp_url: str | None = None
    """OpenTelemetry collector or Jaeger, OTLP over HTTP, such as http://127.0.0.1:4318. None: no traces."""
    sample: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    """Share of ordinary utterances that are kept; slow and failed ones always are."""
    slow_ms: float = 0
    """An utterance that takes longer is slow. 0: longer than `budgets.total`."""
    slow_call_ms: Annotated[float, msgspec.Meta(gt=0)] = 250
    """A request or a transaction that takes longer is kept, whosever it is."""
    max_open: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 5_000
    """Utterances whose spans are held until it is known whether they are kept."""
    trace_url: str | None = None
    """Where a person looks at a trace, with {trace_id} in it, such as http://127.0.0.1:16686/trace/{trace_id}."""
