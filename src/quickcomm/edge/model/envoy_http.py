"""Envoy's vocabulary for HTTP: the listener, its connection manager and filters, and routes."""

import msgspec

from quickcomm.edge.model.envoy import TYPE, Address, ConfigSource, Empty, Message
from quickcomm.edge.model.tracing import Tracing

# -- routes ------------------------------------------------------------------------------------------------------------


class StringMatch(Message, frozen=True, kw_only=True):
    exact: str
    ignore_case: bool = False


class HeaderMatch(Message, frozen=True, kw_only=True):
    name: str
    string_match: StringMatch


class RegexMatch(Message, frozen=True, kw_only=True):
    regex: str


class RouteMatch(Message, frozen=True, kw_only=True):
    prefix: str | None = None
    path: str | None = None
    safe_regex: RegexMatch | None = None
    headers: tuple[HeaderMatch, ...] = ()


class PreviousHosts(
    Message,
    frozen=True,
    kw_only=True,
    tag_field="@type",
    tag=f"{TYPE}extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
):
    """Not the one again that has just failed."""


class HostPredicate(Message, frozen=True, kw_only=True):
    name: str
    typed_config: PreviousHosts


class RetryPolicy(Message, frozen=True, kw_only=True):
    retry_on: str
    num_retries: int
    retriable_status_codes: tuple[int, ...] = ()
    retry_host_predicate: tuple[HostPredicate, ...]
    host_selection_retry_max_attempts: int


class RegexRewrite(Message, frozen=True, kw_only=True):
    pattern: RegexMatch
    substitution: str


class HashedHeader(Message, frozen=True, kw_only=True):
    header_name: str
    regex_rewrite: RegexRewrite


class HashPolicy(Message, frozen=True, kw_only=True):
    """What is hashed (xxh64) to find the instance."""

    header: HashedHeader


class UpgradeConfig(Message, frozen=True, kw_only=True):
    upgrade_type: str
    enabled: bool
    """Written also when false: Envoy's default is another."""


class RouteAction(Message, frozen=True, kw_only=True):
    cluster: str
    timeout: str
    idle_timeout: str
    retry_policy: RetryPolicy | None = None
    upgrade_configs: tuple[UpgradeConfig, ...] = ()
    hash_policy: tuple[HashPolicy, ...] = ()


class BufferPerRoute(
    Message, frozen=True, kw_only=True, tag_field="@type", tag=f"{TYPE}extensions.filters.http.buffer.v3.BufferPerRoute"
):
    disabled: bool


class PerRoute(Message, frozen=True, kw_only=True):
    buffer: BufferPerRoute = msgspec.field(name="envoy.filters.http.buffer")


class DirectResponse(Message, frozen=True, kw_only=True):
    """The edge's own answer."""

    status: int


class Route(Message, frozen=True, kw_only=True):
    """Either passed on (`route`), or answered here (`direct_response`)."""

    name: str
    match: RouteMatch
    route: RouteAction | None = None
    direct_response: DirectResponse | None = None
    typed_per_filter_config: PerRoute | None = None


class VirtualHost(Message, frozen=True, kw_only=True):
    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]


class RouteConfiguration(
    Message, frozen=True, kw_only=True, tag_field="@type", tag=f"{TYPE}config.route.v3.RouteConfiguration"
):
    name: str
    virtual_hosts: tuple[VirtualHost, ...]


# -- filters -----------------------------------------------------------------------------------------------------------


class Router(
    Message, frozen=True, kw_only=True, tag_field="@type", tag=f"{TYPE}extensions.filters.http.router.v3.Router"
):
    """Sends the request on."""


class Buffer(
    Message, frozen=True, kw_only=True, tag_field="@type", tag=f"{TYPE}extensions.filters.http.buffer.v3.Buffer"
):
    """Takes the whole body before the request goes on, and refuses one that is too large."""

    max_request_bytes: int


class TokenBucket(Message, frozen=True, kw_only=True):
    max_tokens: int
    tokens_per_fill: int
    fill_interval: str


class Fraction(Message, frozen=True, kw_only=True):
    numerator: int
    denominator: str


class RuntimeFraction(Message, frozen=True, kw_only=True):
    runtime_key: str
    default_value: Fraction


class DescriptorEntry(Message, frozen=True, kw_only=True):
    key: str


class LimitDescriptor(Message, frozen=True, kw_only=True):
    entries: tuple[DescriptorEntry, ...]
    token_bucket: TokenBucket


class RateLimitAction(Message, frozen=True, kw_only=True):
    remote_address: Empty


class RateLimit(Message, frozen=True, kw_only=True):
    actions: tuple[RateLimitAction, ...]


class LocalRateLimit(
    Message,
    frozen=True,
    kw_only=True,
    tag_field="@type",
    tag=f"{TYPE}extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
):
    stat_prefix: str
    token_bucket: TokenBucket
    filter_enabled: RuntimeFraction
    filter_enforced: RuntimeFraction
    descriptors: tuple[LimitDescriptor, ...]
    rate_limits: tuple[RateLimit, ...]
    max_dynamic_descriptors: int
    always_consume_default_token_bucket: bool
    """Written also when false: Envoy's default is another."""


class HttpFilter(Message, frozen=True, kw_only=True):
    name: str
    typed_config: Router | Buffer | LocalRateLimit


# -- access log and answers of the edge's own --------------------------------------------------------------------------


class JsonFormat(Message, frozen=True, kw_only=True):
    json_format: dict[str, str | bool]
    content_type: str | None = None


class StdoutAccessLog(
    Message,
    frozen=True,
    kw_only=True,
    tag_field="@type",
    tag=f"{TYPE}extensions.access_loggers.stream.v3.StdoutAccessLog",
):
    log_format: JsonFormat


class AccessLog(Message, frozen=True, kw_only=True):
    name: str
    typed_config: StdoutAccessLog


class RuntimeUint(Message, frozen=True, kw_only=True):
    runtime_key: str
    default_value: int


class Comparison(Message, frozen=True, kw_only=True):
    op: str
    value: RuntimeUint


class StatusCodeFilter(Message, frozen=True, kw_only=True):
    comparison: Comparison


class ReplyFilter(Message, frozen=True, kw_only=True):
    status_code_filter: StatusCodeFilter


class HeaderValue(Message, frozen=True, kw_only=True):
    key: str
    value: str


class HeaderToAdd(Message, frozen=True, kw_only=True):
    header: HeaderValue
    append_action: str = ""


class ResponseMapper(Message, frozen=True, kw_only=True):
    filter: ReplyFilter
    body_format_override: JsonFormat
    headers_to_add: tuple[HeaderToAdd, ...] = ()


class LocalReplies(Message, frozen=True, kw_only=True):
    mappers: tuple[ResponseMapper, ...]


# -- connection manager and listener -----------------------------------------------------------------------------------


class Rds(Message, frozen=True, kw_only=True):
    route_config_name: str
    config_source: ConfigSource


class CommonProtocol(Message, frozen=True, kw_only=True):
    idle_timeout: str
    max_headers_count: int


class Http2(Message, frozen=True, kw_only=True):
    max_concurrent_streams: int
    initial_stream_window_size: int
    initial_connection_window_size: int


class ConnectionManager(
    Message,
    frozen=True,
    kw_only=True,
    tag_field="@type",
    tag=f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
):
    stat_prefix: str
    rds: Rds
    http_filters: tuple[HttpFilter, ...]
    access_log: tuple[AccessLog, ...]
    upgrade_configs: tuple[UpgradeConfig, ...]
    local_reply_config: LocalReplies
    common_http_protocol_options: CommonProtocol
    http2_protocol_options: Http2
    request_headers_timeout: str
    request_timeout: str
    stream_idle_timeout: str
    drain_timeout: str
    delayed_close_timeout: str
    max_request_headers_kb: int
    use_remote_address: bool
    normalize_path: bool
    merge_slashes: bool
    path_with_escaped_slashes_action: str
    server_header_transformation: str
    tracing: Tracing | None = None


class NetworkFilter(Message, frozen=True, kw_only=True):
    name: str
    typed_config: ConnectionManager


class DataSource(Message, frozen=True, kw_only=True):
    filename: str


class TlsCertificate(Message, frozen=True, kw_only=True):
    certificate_chain: DataSource
    private_key: DataSource


class TlsParameters(Message, frozen=True, kw_only=True):
    tls_minimum_protocol_version: str


class Secret(
    Message, frozen=True, kw_only=True, tag_field="@type", tag=f"{TYPE}extensions.transport_sockets.tls.v3.Secret"
):
    """A certificate in a watched file of its own, so that it can be replaced while connections are open."""

    name: str
    tls_certificate: TlsCertificate


class SecretConfig(Message, frozen=True, kw_only=True):
    name: str
    sds_config: ConfigSource


class CommonTls(Message, frozen=True, kw_only=True):
    tls_certificate_sds_secret_configs: tuple[SecretConfig, ...]
    alpn_protocols: tuple[str, ...]
    tls_params: TlsParameters


class DownstreamTls(
    Message,
    frozen=True,
    kw_only=True,
    tag_field="@type",
    tag=f"{TYPE}extensions.transport_sockets.tls.v3.DownstreamTlsContext",
):
    common_tls_context: CommonTls


class TransportSocket(Message, frozen=True, kw_only=True):
    name: str
    typed_config: DownstreamTls


class FilterChain(Message, frozen=True, kw_only=True):
    filters: tuple[NetworkFilter, ...]
    transport_socket: TransportSocket | None = None
    transport_socket_connect_timeout: str | None = None


class SocketOption(Message, frozen=True, kw_only=True):
    level: int
    name: int
    int_value: int
    state: str = ""


class Listener(Message, frozen=True, kw_only=True, tag_field="@type", tag=f"{TYPE}config.listener.v3.Listener"):
    name: str
    address: Address
    filter_chains: tuple[FilterChain, ...]
    per_connection_buffer_limit_bytes: int
    socket_options: tuple[SocketOption, ...]
    enable_reuse_port: bool
    """Written also when false: Envoy's default is another, with which two programs may share the port unnoticed."""
