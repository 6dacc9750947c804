"""The pure part of the edge: what Envoy is told, as types. No I/O, no clock."""
