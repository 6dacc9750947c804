"""The one public port: its protocol, its limits, TLS, and the order of what looks at a request."""

import socket
from pathlib import Path
from typing import Final

import msgspec

from quickcomm.edge.model.envoy import Address, ConfigSource, Empty, SocketAddress, seconds
from quickcomm.edge.model.envoy_http import (
    Buffer,
    CommonProtocol,
    CommonTls,
    ConnectionManager,
    DataSource,
    DescriptorEntry,
    DownstreamTls,
    FilterChain,
    Fraction,
    Http2,
    HttpFilter,
    LimitDescriptor,
    Listener,
    LocalRateLimit,
    NetworkFilter,
    RateLimit,
    RateLimitAction,
    Rds,
    Router,
    RuntimeFraction,
    Secret,
    SecretConfig,
    SocketOption,
    TlsCertificate,
    TlsParameters,
    TokenBucket,
    TransportSocket,
    UpgradeConfig,
)
from quickcomm.edge.model.replies import access_log, local_replies
from quickcomm.edge.model.routes import ROUTES, WEBSOCKET
from quickcomm.edge.model.settings import EdgeSettings
from quickcomm.edge.model.tracing import tracing

LISTENER: Final = "public"
CERTIFICATE: Final = "certificate"
FOREVER: Final = "0s"
BUFFER_BYTES: Final = 256 * 1024
"""So much of a stream waits in the edge at most; then the client is not read any more, as the server wants it."""
KEEPALIVE: Final = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
"""As the server has it where there is no edge: a client that vanished without a word is noticed within 30 s."""
ADDRESSES_REMEMBERED: Final = 10_000
ALL_ADDRESSES_FACTOR: Final = 10
"""All addresses together may ask so many times as often as one of them."""
FILL_EVERY_S: Final = 0.1
H2_WINDOW: Final = 256 * 1024


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files: the certificate with its chain, and its key."""

    certificate: Path
    key: Path


class Public(msgspec.Struct, frozen=True, kw_only=True):
    """Where the edge listens."""

    host: str
    port: int
    tls: Tls | None = None

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host
        return f"{'https' if self.tls else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"


def listener(
    public: Public, settings: EdgeSettings, routes: ConfigSource, certificate: ConfigSource | None = None
) -> Listener:
    """`certificate`: where the `secret` is, for a listener that has TLS; then there is no port without it."""
    manager = NetworkFilter(
        name="envoy.filters.network.http_connection_manager", typed_config=_manager(settings, routes)
    )
    chain = FilterChain(
        filters=(manager,),
        transport_socket=_tls(certificate) if certificate else None,
        transport_socket_connect_timeout=seconds(settings.header_timeout_s) if certificate else None,
    )
    return Listener(
        name=LISTENER,
        address=Address(socket_address=SocketAddress(address=public.host, port_value=public.port)),
        filter_chains=(chain,),
        per_connection_buffer_limit_bytes=BUFFER_BYTES,
        socket_options=tuple(_keepalive()),
        enable_reuse_port=False,
    )


def _manager(settings: EdgeSettings, routes: ConfigSource) -> ConnectionManager:
    return ConnectionManager(
        stat_prefix="public",
        rds=Rds(route_config_name=ROUTES, config_source=routes),
        http_filters=tuple(_filters(settings)),
        access_log=access_log(),
        # Off, but for the routes that turn it on.
        upgrade_configs=(UpgradeConfig(upgrade_type=WEBSOCKET, enabled=False),),
        local_reply_config=local_replies(),
        common_http_protocol_options=CommonProtocol(
            idle_timeout=seconds(settings.idle_timeout_s), max_headers_count=settings.max_headers
        ),
        http2_protocol_options=Http2(
            max_concurrent_streams=100,
            initial_stream_window_size=H2_WINDOW,
            initial_connection_window_size=4 * H2_WINDOW,
        ),
        request_headers_timeout=seconds(settings.header_timeout_s),
        request_timeout=seconds(settings.request_timeout_s),
        stream_idle_timeout=seconds(settings.request_timeout_s),
        drain_timeout="1s",
        delayed_close_timeout="1s",
        max_request_headers_kb=settings.max_header_kb,
        use_remote_address=True,  # X-Forwarded-For ends with who really called, whatever he says
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        server_header_transformation="PASS_THROUGH",
        tracing=tracing(settings),
    )


def _filters(settings: EdgeSettings) -> list[HttpFilter]:
    return [
        HttpFilter(name="envoy.filters.http.local_ratelimit", typed_config=_rate_limit(settings)),
        HttpFilter(name="envoy.filters.http.buffer", typed_config=Buffer(max_request_bytes=settings.max_body_bytes)),
        HttpFilter(name="envoy.filters.http.router", typed_config=Router()),
    ]


def _rate_limit(settings: EdgeSettings) -> LocalRateLimit:
    always = Fraction(numerator=100, denominator="HUNDRED")
    return LocalRateLimit(
        stat_prefix="public",
        token_bucket=_bucket(settings, ALL_ADDRESSES_FACTOR),
        filter_enabled=RuntimeFraction(runtime_key="edge.rate_limit.enabled", default_value=always),
        filter_enforced=RuntimeFraction(runtime_key="edge.rate_limit.enforced", default_value=always),
        descriptors=(
            LimitDescriptor(entries=(DescriptorEntry(key="remote_address"),), token_bucket=_bucket(settings, 1)),
        ),
        rate_limits=(RateLimit(actions=(RateLimitAction(remote_address=Empty()),)),),
        max_dynamic_descriptors=ADDRESSES_REMEMBERED,
        always_consume_default_token_bucket=True,
    )


def _bucket(settings: EdgeSettings, factor: int) -> TokenBucket:
    return TokenBucket(
        max_tokens=settings.requests_burst * factor,
        tokens_per_fill=max(1, round(settings.requests_per_second * factor * FILL_EVERY_S)),
        fill_interval=seconds(FILL_EVERY_S),
    )


def secret(tls: Tls) -> Secret:
    certificate = TlsCertificate(
        certificate_chain=DataSource(filename=str(tls.certificate)), private_key=DataSource(filename=str(tls.key))
    )
    return Secret(name=CERTIFICATE, tls_certificate=certificate)


def _tls(certificate: ConfigSource) -> TransportSocket:
    context = CommonTls(
        tls_certificate_sds_secret_configs=(SecretConfig(name=CERTIFICATE, sds_config=certificate),),
        alpn_protocols=("h2", "http/1.1"),
        tls_params=TlsParameters(tls_minimum_protocol_version="TLSv1_2"),
    )
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=DownstreamTls(common_tls_context=context))


def _keepalive() -> list[SocketOption]:
    options = [SocketOption(level=socket.SOL_SOCKET, name=socket.SO_KEEPALIVE, int_value=1)]
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):  # not on every system
            options.append(SocketOption(level=socket.IPPROTO_TCP, name=getattr(socket, name), int_value=value))
    return options
