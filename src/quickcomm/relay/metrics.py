"""Figures of the session relay for Prometheus."""

from prometheus_client import Counter, Gauge

SOCKETS = Gauge("quickcomm_relay_sockets", "Clients whose sockets the session relay holds")
HELD = Gauge("quickcomm_relay_held_bytes", "Unacknowledged sound that the session relay holds")
RESUMED = Counter(
    "quickcomm_relay_resumed_total", "Conversations resumed upstream, by what ended the connection before", ["after"]
)
CLOSED = Counter("quickcomm_relay_closed_total", "Client sockets closed by the session relay, by close code", ["code"])
