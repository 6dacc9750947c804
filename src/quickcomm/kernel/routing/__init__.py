"""How routes get from the controller to all processes: published in the store under a rising version, and polled."""

from quickcomm.kernel.routing.port import FixedRoutes, FollowedRoutes, StaleRoutesError
from quickcomm.kernel.routing.redis import RedisRoutes, RoutesFollower, first_routes, stored_routes

__all__ = [
    "FixedRoutes",
    "FollowedRoutes",
    "RedisRoutes",
    "RoutesFollower",
    "StaleRoutesError",
    "first_routes",
    "stored_routes",
]
