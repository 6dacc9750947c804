"""Settings of the edge, with defaults that suit a small site."""

from typing import Annotated, Final

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
INNER_SOCKET: Final = "inner.sock"
"""In the edge's directory: where it takes what a front (the session relay) passes on."""


class EdgeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Only `up` reads them; `serve` has no edge."""

    header_timeout_s: Positive = 10.0
    """A client must have sent all headers by then."""
    request_timeout_s: Positive = 30.0
    """A client must have sent its whole request by then. WebSockets are open from their answer on, and exempt."""
    answer_timeout_s: Positive = 20.0
    """REST and page: the answer must be complete by then. WebSockets have no limit."""
    idle_timeout_s: Positive = 75.0
    """A connection on which nothing is asked for so long is closed."""
    max_body_bytes: Count = 64 * 1024
    max_header_kb: Annotated[int, msgspec.Meta(ge=1, le=8192)] = 16
    max_headers: Count = 64
    max_connections: Count = 4_096
    requests_per_second: Count = 200
    """From one address; WebSockets count as one request. Keys have limits of their own (`keys.*`)."""
    requests_burst: Count = 800
    health_interval_s: Positive = 0.5
    health_timeout_s: Positive = 1.0
    threads: Count = 2
    trusted_hops: Annotated[int, msgspec.Meta(ge=0, le=16)] = 0
    """Proxies of the operator before the edge. Set `keys.trusted_hops`: all of a site then go by it."""
    hash_balance_percent: Annotated[int, msgspec.Meta(ge=101, le=10_000)] = 150
    """Of its share: an instance of audio that has so many conversations gets no more while others have fewer."""
    otlp_url: str | None = None
    """Where spans go (OTLP over HTTP), such as http://127.0.0.1:4318/v1/traces."""
    trace_percent: Annotated[float, msgspec.Meta(ge=0, le=100)] = 100.0
    """Of the requests that do not say themselves whether they are traced."""
