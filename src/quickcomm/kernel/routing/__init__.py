"""How routes get from the controller to all processes: published in the store under a rising version, and polled."""

from quickcomm.kernel.routing.port import FixedRoutes, FollowedRoutes, StaleRoutesError
from quickcomm.kernel.routing.redis import RedisRoutes, RoutesFollower

__all__ = ["FixedRoutes", "FollowedRoutes", "RedisRoutes", "RoutesFollower", "StaleRoutesError"]
