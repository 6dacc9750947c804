"""What things are called inside Valkey. Docs and access rules name these keys: keep them."""

from typing import Final

from quickcomm.contracts.identity import bucket

PREFIX: Final = "quickcomm"
PARTITIONS: Final = 8
"""Of every stream, for good: a key that moved to another partition would lose its order. So many can share the work."""


def partition(key: str) -> int:
    return bucket("bus", key) % PARTITIONS


class Names:
    def __init__(self, prefix: str = PREFIX) -> None:
        self.prefix = prefix
        self.streams = f"{prefix}:streams"
        self.dead = f"{prefix}:dead-letters"
        self.last_dead = f"{prefix}:dead-letters:last"

    def part(self, stream: str, part: int) -> str:
        return f"{self.prefix}:{stream}:{part}"

    def of_key(self, stream: str, key: str) -> str:
        return self.part(stream, partition(key))

    def parts(self, stream: str) -> list[str]:
        return [self.part(stream, part) for part in range(PARTITIONS)]

    def leases(self, stream: str, group: str) -> str:
        return f"{self.prefix}:{stream}:leases:{group}"

    def members(self, stream: str, group: str) -> str:
        return f"{self.prefix}:{stream}:members:{group}"
