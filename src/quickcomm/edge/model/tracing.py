"""The edge's own spans, sent to a collector, where there is one. Never with a query: a key may be in it."""

from typing import Final
from urllib.parse import urlsplit

from quickcomm.edge.model.envoy import (
    TYPE,
    Address,
    Endpoint,
    LbEndpoint,
    LocalityEndpoints,
    Message,
    Percent,
    SocketAddress,
    seconds,
)
from quickcomm.edge.model.settings import EdgeSettings
from quickcomm.kernel.errors import ConfigurationError

COLLECTOR: Final = "otlp"
TIMEOUT_S: Final = 1.0
SERVICE: Final = "edge"


class HttpUri(Message, frozen=True, kw_only=True):
    uri: str
    cluster: str
    timeout: str


class HttpService(Message, frozen=True, kw_only=True):
    http_uri: HttpUri


class OpenTelemetry(
    Message, frozen=True, kw_only=True, tag_field="@type", tag=f"{TYPE}config.trace.v3.OpenTelemetryConfig"
):
    http_service: HttpService
    service_name: str


class Provider(Message, frozen=True, kw_only=True):
    name: str
    typed_config: OpenTelemetry


class CustomTag(Message, frozen=True, kw_only=True):
    tag: str
    value: str


class Tracing(Message, frozen=True, kw_only=True):
    provider: Provider
    random_sampling: Percent
    max_path_tag_length: int | None = None
    custom_tags: tuple[CustomTag, ...] = ()


class Assignment(Message, frozen=True, kw_only=True):
    """As `ClusterLoadAssignment`, inside a cluster."""

    cluster_name: str
    endpoints: tuple[LocalityEndpoints, ...]


class CollectorCluster(Message, frozen=True, kw_only=True, tag_field="@type", tag=f"{TYPE}config.cluster.v3.Cluster"):
    name: str
    type: str
    connect_timeout: str
    load_assignment: Assignment


def tracing(settings: EdgeSettings) -> Tracing | None:
    """None where nobody collects spans."""
    if settings.otlp_url is None:
        return None
    uri = HttpUri(uri=settings.otlp_url, cluster=COLLECTOR, timeout=seconds(TIMEOUT_S))
    config = OpenTelemetry(http_service=HttpService(http_uri=uri), service_name=SERVICE)
    return Tracing(
        provider=Provider(name="envoy.tracers.opentelemetry", typed_config=config),
        random_sampling=Percent(value=settings.trace_percent),
        # The tag http.url would have the query; nothing of the path remains in it, and the path has a tag of its own.
        max_path_tag_length=0,
        custom_tags=(CustomTag(tag="url.path", value="%PATH(NQ)%"),),
    )


def collector(settings: EdgeSettings) -> tuple[CollectorCluster, ...]:
    """The cluster of the collector, if there is one. Raises `ConfigurationError` for a URL that is none."""
    if settings.otlp_url is None:
        return ()
    parts = urlsplit(settings.otlp_url)
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigurationError("edge.otlp_url must be an http:// address, such as http://127.0.0.1:4318/v1/traces.")
    address = Address(socket_address=SocketAddress(address=parts.hostname, port_value=parts.port or 80))
    endpoints = LocalityEndpoints(lb_endpoints=(LbEndpoint(endpoint=Endpoint(address=address)),))
    return (
        CollectorCluster(
            name=COLLECTOR,
            type="STRICT_DNS",
            connect_timeout=seconds(TIMEOUT_S),
            load_assignment=Assignment(cluster_name=COLLECTOR, endpoints=(endpoints,)),
        ),
    )
