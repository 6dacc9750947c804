"""Envoy's vocabulary, as far as the edge uses it: clusters, endpoints, health checks, addresses, files to watch.

Field names are Envoy's own (v3 API); what is unset is left out, and Envoy's default holds.
"""

from typing import Final

import msgspec

TYPE: Final = "type.googleapis.com/envoy."


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What Envoy reads; an unset field is not written."""


class Empty(Message, frozen=True, kw_only=True):
    """`{}`: present is all it says."""


def seconds(value: float) -> str:
    """A duration as Envoy's JSON has it."""
    return f"{value:.3f}".rstrip("0").rstrip(".") + "s"


# -- addresses and where resources come from ---------------------------------------------------------------------------


class SocketAddress(Message, frozen=True, kw_only=True):
    address: str
    port_value: int


class Pipe(Message, frozen=True, kw_only=True):
    """A Unix socket."""

    path: str
    mode: int | None = None


class Address(Message, frozen=True, kw_only=True):
    socket_address: SocketAddress | None = None
    pipe: Pipe | None = None


class WatchedDirectory(Message, frozen=True, kw_only=True):
    path: str


class PathConfigSource(Message, frozen=True, kw_only=True):
    """A file that is replaced by rename inside a directory that Envoy watches."""

    path: str
    watched_directory: WatchedDirectory


class ConfigSource(Message, frozen=True, kw_only=True):
    path_config_source: PathConfigSource


# -- endpoints ---------------------------------------------------------------------------------------------------------


class Endpoint(Message, frozen=True, kw_only=True):
    address: Address


class LbEndpoint(Message, frozen=True, kw_only=True):
    endpoint: Endpoint


class LocalityEndpoints(Message, frozen=True, kw_only=True):
    lb_endpoints: tuple[LbEndpoint, ...]


class ClusterLoadAssignment(
    Message, frozen=True, kw_only=True, tag_field="@type", tag=f"{TYPE}config.endpoint.v3.ClusterLoadAssignment"
):
    cluster_name: str
    endpoints: tuple[LocalityEndpoints, ...] = ()


# -- clusters ----------------------------------------------------------------------------------------------------------


class HttpHealthCheck(Message, frozen=True, kw_only=True):
    path: str
    host: str


class HealthCheck(Message, frozen=True, kw_only=True):
    timeout: str
    interval: str
    no_traffic_interval: str
    no_traffic_healthy_interval: str
    unhealthy_interval: str
    unhealthy_threshold: int
    healthy_threshold: int
    http_health_check: HttpHealthCheck


class Percent(msgspec.Struct, frozen=True, kw_only=True):
    value: float
    """Written also when 0: Envoy's default is another."""


class ConsistentHashing(Message, frozen=True, kw_only=True):
    hash_balance_factor: int


class CommonLb(Message, frozen=True, kw_only=True):
    healthy_panic_threshold: Percent
    update_merge_window: str
    consistent_hashing_lb_config: ConsistentHashing | None = None


class Thresholds(Message, frozen=True, kw_only=True):
    max_connections: int
    max_pending_requests: int
    max_requests: int
    max_retries: int
    track_remaining: bool = False


class CircuitBreakers(Message, frozen=True, kw_only=True):
    thresholds: tuple[Thresholds, ...]


class EdsConfig(Message, frozen=True, kw_only=True):
    eds_config: ConfigSource


class Cluster(Message, frozen=True, kw_only=True, tag_field="@type", tag=f"{TYPE}config.cluster.v3.Cluster"):
    name: str
    type: str
    connect_timeout: str
    eds_cluster_config: EdsConfig
    health_checks: tuple[HealthCheck, ...]
    common_lb_config: CommonLb
    circuit_breakers: CircuitBreakers
    per_connection_buffer_limit_bytes: int
    lb_policy: str
    ignore_health_on_host_removal: bool = False


# -- the file that Envoy starts with -----------------------------------------------------------------------------------


class Node(Message, frozen=True, kw_only=True):
    id: str
    cluster: str


class Admin(Message, frozen=True, kw_only=True):
    address: Address


class DynamicResources(Message, frozen=True, kw_only=True):
    lds_config: ConfigSource
    cds_config: ConfigSource


class DownstreamConnections(
    Message,
    frozen=True,
    kw_only=True,
    tag_field="@type",
    tag=f"{TYPE}extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
):
    max_active_downstream_connections: int


class ResourceMonitor(Message, frozen=True, kw_only=True):
    name: str
    typed_config: DownstreamConnections


class OverloadManager(Message, frozen=True, kw_only=True):
    resource_monitors: tuple[ResourceMonitor, ...]


class Bootstrap(Message, frozen=True, kw_only=True):
    node: Node
    admin: Admin
    dynamic_resources: DynamicResources
    overload_manager: OverloadManager


class Resources(Message, frozen=True, kw_only=True):
    """The content of a watched file: resources of one kind, with the version that Envoy reports once it has them."""

    version_info: str
    resources: tuple[Message, ...]
