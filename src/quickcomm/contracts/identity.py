"""Identity: utterance ids and routing buckets. Pure functions, so that everybody agrees without asking."""

import xxhash

BUCKETS = 10_000


def bucket(module: str, conversation_id: str) -> int:
    """Bucket 0 … 9,999 of a conversation for a module (xxh64 with seed 0, as Envoy hashes)."""
    return xxhash.xxh64_intdigest(f"{module}:{conversation_id}".encode()) % BUCKETS


def utterance_id(conversation_id: str, speaker: int, start_offset: int) -> str:
    """The deterministic id by which every consumer deduplicates."""
    return f"{conversation_id}:{speaker}:{start_offset}"
