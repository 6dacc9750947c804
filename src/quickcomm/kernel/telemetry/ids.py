"""Trace ids that follow from the utterance: a resend gives the same trace."""

import re
from typing import Final

import xxhash

ROOT: Final = "utterance"
CONVERSATION: Final = "conversation"
SAMPLED: Final = 0x01
_LOW: Final = (1 << 64) - 1
_FORMAT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def trace_id_of(site: str, identifier: str) -> int:
    """128 bits, never 0. `identifier`: of an utterance or a conversation."""
    return xxhash.xxh3_128_intdigest(f"{site}\0{identifier}".encode()) or 1


def span_id_of(trace_id: int, name: str) -> int:
    """64 bits, never 0: the span of that name in a trace that has only one of it."""
    return xxhash.xxh3_64_intdigest(f"{trace_id:032x}:{name}".encode()) or 1


def in_sample(trace_id: int, ratio: float) -> bool:
    """The same answer in every process, as OpenTelemetry's `TraceIdRatioBased` gives it."""
    return trace_id & _LOW < round(ratio * (1 << 64))


def traceparent(site: str, utterance_id: str, ratio: float) -> str:
    """W3C Trace Context of an utterance's root span; the flag says whether it is in the sample."""
    trace_id = trace_id_of(site, utterance_id)
    flags = SAMPLED if in_sample(trace_id, ratio) else 0
    return f"00-{trace_id:032x}-{span_id_of(trace_id, ROOT):016x}-{flags:02x}"


def with_flag(parent: str) -> str:
    """The same `traceparent`, saying that its trace is kept."""
    return f"{parent[:-2]}{int(parent[-2:], 16) | SAMPLED:02x}"


def trace_id_in(parent: str | None) -> str | None:
    """The trace id in a `traceparent`, as 32 hexadecimal digits."""
    parts = (parent or "").split("-")
    return parts[1] if len(parts) == 4 and len(parts[1]) == 32 else None  # noqa: PLR2004 - the format's


def parsed(parent: str | None) -> tuple[int, int, bool] | None:
    """Trace id, span id and whether it is kept, of a `traceparent` from anywhere; None for what is none."""
    found = _FORMAT.fullmatch(parent) if parent else None
    if found is None:
        return None
    trace_id, span_id = int(found[1], 16), int(found[2], 16)
    return (trace_id, span_id, bool(int(found[3], 16) & SAMPLED)) if trace_id and span_id else None
