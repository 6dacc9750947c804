"""What `/metrics` says of the language model."""

from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

_SECONDS: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.2, 1.6, 2.0, 2.5, 3.0, 5.0, 10.0)

RENEWED = Counter("quickcomm_llm_renewed", "Degraded utterances that were classified again", ["result"])
"""Results: `renewed`, `given_up`."""
SHADOWED = Counter("quickcomm_shadow_utterances", "Utterances of the other side that were understood here", ["result"])
"""Results: `alike`, `different`, `unanswered`, `unserved`, `degraded`, `shed`."""


class Metrics:
    """Those of a pipeline.

    `calls` by outcome: `ok`, or the last part of the error's code. `insights` by source: `llm`, or `degraded` where the
    local classifier took the model's place. `dropped` by kind.
    """

    def __init__(self, registry: CollectorRegistry | None = REGISTRY) -> None:
        """`registry`: None for a pipeline of a shadow."""

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(name, about, labels, registry=registry)

        def gauge(name: str, about: str) -> Gauge:
            return Gauge(name, about, registry=registry)

        about = "How long calls that were answered took"
        self.calls = counter("quickcomm_llm_calls", "Calls to the language model, by how they ended", "outcome")
        self.seconds = Histogram("quickcomm_llm_call_seconds", about, buckets=_SECONDS, registry=registry)
        self.shared = counter(
            "quickcomm_llm_shared_calls", "Utterances that shared the call of an identical one in flight"
        )
        self.hedged = counter("quickcomm_llm_hedged_calls", "Second calls sent because the first took long")
        self.breaker_open = gauge(
            "quickcomm_llm_breaker_open", "1 while the circuit breaker keeps utterances from the model"
        )
        self.concurrency_limit = gauge("quickcomm_llm_concurrency_limit", "Calls in flight allowed now")
        self.in_flight = gauge("quickcomm_llm_calls_in_flight", "Calls in flight")
        self.insights = counter("quickcomm_llm_utterances", "Utterances by who answered them", "source")
        self.dropped = counter("quickcomm_llm_dropped", "Claims of the model that the text does not support", "kind")


SERVED: Final = Metrics()
