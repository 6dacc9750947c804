"""The edge's own answers as problem documents (RFC 9457), and its access log: one JSON object a request, no query."""

from typing import Final

from quickcomm.edge.model.envoy_http import (
    AccessLog,
    Comparison,
    HeaderToAdd,
    HeaderValue,
    JsonFormat,
    LocalReplies,
    ReplyFilter,
    ResponseMapper,
    RuntimeUint,
    StatusCodeFilter,
    StdoutAccessLog,
)

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = "1"

# status: code, title, detail
PROBLEMS: Final[dict[int, tuple[str, str, str]]] = {
    400: ("edge.bad_request", "Bad Request", "This is no request that can be passed on."),
    403: ("edge.forbidden", "Forbidden", "There is no WebSocket at this address."),
    404: ("edge.not_found", "Not Found", "There is nothing at this address."),
    408: ("edge.too_slow", "Request Timeout", "The request did not arrive in time."),
    413: ("edge.body_too_large", "Content Too Large", "The body of the request is too large."),
    429: ("edge.too_many_requests", "Too Many Requests", "Too many requests from this address; slow down."),
    431: ("edge.headers_too_large", "Request Header Fields Too Large", "The headers of the request are too large."),
    503: ("edge.unavailable", "Service Unavailable", "Nobody can take this just now; try again in a moment."),
    504: ("edge.timeout", "Gateway Timeout", "The answer did not come in time; try again."),
}
SAFE_HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)
RETRYABLE: Final = frozenset({429, 503, 504})

# The path without its query: a key may be in there.
ACCESS: Final[dict[str, str | bool]] = {
    "time": "%START_TIME%",
    "event": "edge.request",
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "duration_ms": "%DURATION%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "route": "%ROUTE_NAME%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "upstream": "%UPSTREAM_HOST%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "trace_id": "%TRACE_ID%",
    "traceparent": "%REQ(TRACEPARENT)%",
}


def access_log() -> tuple[AccessLog, ...]:
    """To standard output; the edge's own messages go to standard error."""
    logger = StdoutAccessLog(log_format=JsonFormat(json_format=ACCESS))
    return (AccessLog(name="envoy.access_loggers.stdout", typed_config=logger),)


def local_replies() -> LocalReplies:
    return LocalReplies(mappers=tuple(_mapper(status) for status in PROBLEMS))


def _mapper(status: int) -> ResponseMapper:
    code, title, detail = PROBLEMS[status]
    document: dict[str, str | bool] = {
        "type": f"urn:quickcomm:problem:{code}",
        "title": title,
        "status": "%RESPONSE_CODE%",
        "detail": detail,
        "code": code,
    }
    headers = [HeaderToAdd(header=HeaderValue(key=key, value=value)) for key, value in SAFE_HEADERS]
    if status in RETRYABLE:
        document["retryable"] = True
        headers.append(HeaderToAdd(header=HeaderValue(key="Retry-After", value=RETRY_AFTER_S)))
    compare = Comparison(op="EQ", value=RuntimeUint(runtime_key=f"edge.reply.{status}", default_value=status))
    return ResponseMapper(
        filter=ReplyFilter(status_code_filter=StatusCodeFilter(comparison=compare)),
        body_format_override=JsonFormat(json_format=document, content_type=MEDIA_TYPE),
        headers_to_add=tuple(headers),
    )
