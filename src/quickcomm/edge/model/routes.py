"""What the edge lets in, by purpose, and where it goes: the routes of the outer contract as data."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from quickcomm.edge.model.envoy import seconds
from quickcomm.edge.model.envoy_http import (
    BufferPerRoute,
    DirectResponse,
    HashedHeader,
    HashPolicy,
    HeaderMatch,
    HostPredicate,
    PerRoute,
    PreviousHosts,
    RegexMatch,
    RegexRewrite,
    RetryPolicy,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    StringMatch,
    UpgradeConfig,
    VirtualHost,
)
from quickcomm.edge.model.settings import EdgeSettings

ROUTES: Final = "public"
WEBSOCKET: Final = "websocket"
FOREVER: Final = "0s"
HEALTH_TIMEOUT_S: Final = 5.0
OTHER_HOSTS: Final = 16
"""So often another instance is looked for: by a hash, the next place is often the same instance's."""


class Purpose(StrEnum):
    """Why somebody comes; the cluster that serves a purpose is what moves when a service is taken out."""

    AUDIO = "audio"
    LIVE = "live"
    REST = "rest"
    PAGE = "page"
    HEALTH = "health"


_INTERNAL: Final = RouteMatch(safe_regex=RegexMatch(regex=r"(?i)/internal(/.*)?"))
"""Between services, over their own sockets."""
_AUDIO: Final = RouteMatch(safe_regex=RegexMatch(regex=r"/v1/conversations/[^/]+/audio"))
_CONVERSATION: Final = HashPolicy(
    header=HashedHeader(
        header_name=":path",
        regex_rewrite=RegexRewrite(
            pattern=RegexMatch(regex=r"^/v1/conversations/([^/?]+)/audio.*$"), substitution=rf"{Purpose.AUDIO}:\1"
        ),
    )
)
"""What a bucket is made of: `audio:CONVERSATION`. A conversation comes back to the same instance while that is there;
when it is not, hardly any other conversation moves for it."""
_LIVE: Final = RouteMatch(path="/v1/live")
_BOUNDED: Final[tuple[tuple[Purpose, RouteMatch], ...]] = (
    (Purpose.HEALTH, RouteMatch(path="/healthz")),
    (Purpose.HEALTH, RouteMatch(path="/readyz")),
    (Purpose.AUDIO, _AUDIO),
    (Purpose.LIVE, _LIVE),
    (Purpose.REST, RouteMatch(prefix="/v1/")),
    (Purpose.REST, RouteMatch(path="/openapi.json")),
    (Purpose.REST, RouteMatch(path="/metrics")),
    (Purpose.PAGE, RouteMatch(prefix="/")),
)


def route_configuration(clusters: Mapping[Purpose, str], settings: EdgeSettings) -> RouteConfiguration:
    """The first route that matches has the request. WebSockets first, and only where a client asks for one."""
    nobody = Route(name="internal", match=_INTERNAL, direct_response=DirectResponse(status=404))
    sockets = [_socket(Purpose.AUDIO, _AUDIO, clusters), _socket(Purpose.LIVE, _LIVE, clusters)]
    bounded = [_bounded(purpose, match, clusters, settings) for purpose, match in _BOUNDED]
    host = VirtualHost(name="everybody", domains=("*",), routes=(nobody, *sockets, *bounded))
    return RouteConfiguration(name=ROUTES, virtual_hosts=(host,))


def _socket(purpose: Purpose, match: RouteMatch, clusters: Mapping[Purpose, str]) -> Route:
    asks = HeaderMatch(name="upgrade", string_match=StringMatch(exact=WEBSOCKET, ignore_case=True))
    return Route(
        name=f"{purpose}-{WEBSOCKET}",
        match=RouteMatch(path=match.path, safe_regex=match.safe_regex, headers=(asks,)),
        route=RouteAction(
            cluster=clusters[purpose],
            timeout=FOREVER,
            idle_timeout=FOREVER,
            retry_policy=_again(elsewhere_if_busy=purpose is Purpose.AUDIO),
            hash_policy=(_CONVERSATION,) if purpose is Purpose.AUDIO else (),
            upgrade_configs=(UpgradeConfig(upgrade_type=WEBSOCKET, enabled=True),),
        ),
        typed_per_filter_config=PerRoute(buffer=BufferPerRoute(disabled=True)),
    )


def _bounded(purpose: Purpose, match: RouteMatch, clusters: Mapping[Purpose, str], settings: EdgeSettings) -> Route:
    limit = HEALTH_TIMEOUT_S if purpose is Purpose.HEALTH else settings.answer_timeout_s
    return Route(
        name=purpose.value,
        match=match,
        route=RouteAction(
            cluster=clusters[purpose],
            timeout=seconds(limit),
            idle_timeout=seconds(limit),
            retry_policy=_again(),
        ),
    )


def _again(*, elsewhere_if_busy: bool = False) -> RetryPolicy:
    """Once more with another instance, but only what never reached a server: nothing is done twice.

    `elsewhere_if_busy`: also what an instance has no room for, or is about to leave (503), before it was let in.
    """
    busy = (503,) if elsewhere_if_busy else ()
    another = HostPredicate(name="envoy.retry_host_predicates.previous_hosts", typed_config=PreviousHosts())
    return RetryPolicy(
        retry_on="connect-failure,refused-stream,reset-before-request" + (",retriable-status-codes" if busy else ""),
        num_retries=1,
        retriable_status_codes=busy,
        retry_host_predicate=(another,),
        host_selection_retry_max_attempts=OTHER_HOSTS,
    )
