"""Who serves: one cluster a module, its endpoints from a file, checked for health while nobody asks."""

from collections.abc import Sequence
from typing import Final

import msgspec

from quickcomm.edge.model.envoy import (
    Address,
    Admin,
    Bootstrap,
    CircuitBreakers,
    Cluster,
    ClusterLoadAssignment,
    CommonLb,
    ConfigSource,
    ConsistentHashing,
    DownstreamConnections,
    DynamicResources,
    EdsConfig,
    Endpoint,
    HealthCheck,
    HttpHealthCheck,
    LbEndpoint,
    LocalityEndpoints,
    Node,
    OverloadManager,
    Percent,
    Pipe,
    ResourceMonitor,
    SocketAddress,
    Thresholds,
    seconds,
)
from quickcomm.edge.model.listener import BUFFER_BYTES
from quickcomm.edge.model.settings import EdgeSettings

READY_PATH: Final = "/readyz"
PATIENCE: Final = 4
"""Who has others beside it that can go on at once is out when it is late. Who yields to them may be late because of
that, and nobody is served better by nobody: it has so many times as long."""
MONITOR: Final = "envoy.resource_monitors.global_downstream_max_connections"


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """Where an instance listens: a Unix socket, or host and port."""

    socket: str | None = None
    host: str = "127.0.0.1"
    port: int = 0

    @property
    def address(self) -> Address:
        if self.socket is not None:
            return Address(pipe=Pipe(path=self.socket))
        return Address(socket_address=SocketAddress(address=self.host, port_value=self.port))


def cluster(name: str, settings: EdgeSettings, endpoints: ConfigSource, *, sticky: bool = False) -> Cluster:
    """`sticky`: requests of routes with a hash go to the instance to which their hash belongs.

    One that has half as much again as its share is passed over.
    """
    limit = settings.max_connections
    balance = ConsistentHashing(hash_balance_factor=settings.hash_balance_percent) if sticky else None
    return Cluster(
        name=name,
        type="EDS",
        connect_timeout="1s",
        eds_cluster_config=EdsConfig(eds_config=endpoints),
        health_checks=(_health_check(name, settings, PATIENCE if not sticky else 1),),
        # An instance that is known to be ill gets nothing, even if all of them are; and that is in force at once, where
        # Envoy would collect changes of health for a second.
        common_lb_config=CommonLb(
            healthy_panic_threshold=Percent(value=0.0),
            update_merge_window="0s",
            consistent_hashing_lb_config=balance,
        ),
        circuit_breakers=CircuitBreakers(
            thresholds=(
                Thresholds(max_connections=limit, max_pending_requests=1_024, max_requests=limit, max_retries=3),
            )
        ),
        per_connection_buffer_limit_bytes=BUFFER_BYTES,
        # Envoy's rings have more places an instance the fewer there are, and so move conversations of those that stay.
        lb_policy="MAGLEV" if sticky else "LEAST_REQUEST",
        # Who is taken off the list is gone at once, and not only when it fails its checks.
        ignore_health_on_host_removal=True,
    )


def assignment(name: str, backends: Sequence[Backend]) -> ClusterLoadAssignment:
    in_order = sorted(backends, key=lambda each: (each.socket or "", each.host, each.port))
    endpoints = tuple(LbEndpoint(endpoint=Endpoint(address=each.address)) for each in in_order)
    return ClusterLoadAssignment(
        cluster_name=name, endpoints=(LocalityEndpoints(lb_endpoints=endpoints),) if endpoints else ()
    )


def bootstrap(admin_socket: str, settings: EdgeSettings, listeners: ConfigSource, clusters: ConfigSource) -> Bootstrap:
    """What Envoy starts with; everything else it reads from files that may change."""
    connections = DownstreamConnections(max_active_downstream_connections=settings.max_connections)
    return Bootstrap(
        node=Node(id="edge", cluster="quickcomm"),
        admin=Admin(address=Address(pipe=Pipe(path=admin_socket, mode=0o600))),
        dynamic_resources=DynamicResources(lds_config=listeners, cds_config=clusters),
        overload_manager=OverloadManager(resource_monitors=(ResourceMonitor(name=MONITOR, typed_config=connections),)),
    )


def _health_check(name: str, settings: EdgeSettings, patience: int) -> HealthCheck:
    """Two checks that find nobody, or one answer other than 200: it is out. One good answer: it is in."""
    often = seconds(settings.health_interval_s)
    return HealthCheck(
        timeout=seconds(settings.health_timeout_s * patience),
        interval=often,
        no_traffic_interval=often,
        no_traffic_healthy_interval=often,
        unhealthy_interval=seconds(settings.health_interval_s / 2),
        unhealthy_threshold=2,
        healthy_threshold=1,
        http_health_check=HttpHealthCheck(path=READY_PATH, host=name),
    )
