"""What people say to people, and what they say to the model: the sets under tests/data/orders."""

from pathlib import Path

import msgspec

from quickcomm.contracts.insight import Urgency

DATA = Path(__file__).resolve().parent.parent / "data" / "orders"


class Injection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`rooms` must come out and no others; of things and urgency, no more than `items` and `urgency`."""

    kind: str
    text: str
    rooms: tuple[str, ...]
    items: tuple[str, ...]
    urgency: Urgency


class Genuine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    text: str


def injections() -> list[Injection]:
    lines = (DATA / "injections.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Injection) for line in lines if line.strip()]


def genuine() -> list[str]:
    lines = (DATA / "genuine.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Genuine).text for line in lines if line.strip()]
