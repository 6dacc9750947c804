"""What `/metrics` says of the language model."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_SECONDS: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.2, 1.6, 2.0, 2.5, 3.0, 5.0, 10.0)

CALLS = Counter("quickcomm_llm_calls", "Calls to the language model, by how they ended", ["outcome"])
"""Outcomes: `ok`, or the last part of the error's code."""
SECONDS = Histogram("quickcomm_llm_call_seconds", "How long calls that were answered took", buckets=_SECONDS)
SHARED = Counter("quickcomm_llm_shared_calls", "Utterances that shared the call of an identical one in flight")
HEDGED = Counter("quickcomm_llm_hedged_calls", "Second calls sent because the first took long")
BREAKER_OPEN = Gauge("quickcomm_llm_breaker_open", "1 while the circuit breaker keeps utterances from the model")
CONCURRENCY_LIMIT = Gauge("quickcomm_llm_concurrency_limit", "Calls in flight allowed now")
IN_FLIGHT = Gauge("quickcomm_llm_calls_in_flight", "Calls in flight")
INSIGHTS = Counter("quickcomm_llm_utterances", "Utterances by who answered them", ["source"])
"""Sources: `llm`, `cache`, `degraded` (the local classifier in the model's place)."""
RENEWED = Counter("quickcomm_llm_renewed", "Degraded utterances that were classified again", ["result"])
"""Results: `renewed`, `given_up`."""
DROPPED = Counter("quickcomm_llm_dropped", "Claims of the model that the text does not support", ["kind"])
