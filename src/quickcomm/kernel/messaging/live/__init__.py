"""Ephemeral publish/subscribe: `port` the interface, `local` within a process, `wire` between processes."""

from quickcomm.kernel.messaging.live.local import LocalLive
from quickcomm.kernel.messaging.live.port import HERE, Live, LostError, Peer, Subscription, UnsupportedTopicError

__all__ = ["HERE", "Live", "LocalLive", "LostError", "Peer", "Subscription", "UnsupportedTopicError"]
