"""Whether two releases understand each other's messages: by schemas."""

from typing import Any, Literal

import msgspec
import pytest

from quickcomm.operate.fitting import fits, misfits
from quickcomm.operate.release import Flow, Told, own


class One(msgspec.Struct, kw_only=True, tag="one"):
    name: str
    count: int = 0


class Other(msgspec.Struct, kw_only=True, tag="other"):
    ratio: float


class Nested(msgspec.Struct, kw_only=True):
    first: One | Other
    rest: list[One] = []
    by_name: dict[str, One] = {}
    parent: "Nested | None" = None


class Strict(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    name: str


def told(*types: Any, module: str = "", reads: bool = True) -> Told:
    """Return what a release tells whose streams are of these types."""
    schemas, components = msgspec.json.schema_components(types, ref_template="{name}")
    streams = {f"s{number}.v1": schema for number, schema in enumerate(schemas)}
    flow = Flow(reads=tuple(streams)) if reads else Flow(writes=tuple(streams))
    return Told(
        version="1",
        digest="0" * 64,
        package="",
        modules={module: flow},
        streams=streams,
        requests={},
        components=components,
    )


def why(reader: Any, writer: Any) -> list[str]:
    """Return why a reader of one type cannot read another one."""
    one, other = told(reader), told(writer)
    return fits(one.streams["s0.v1"], other.streams["s0.v1"], one, other)


def changed(fields: list[Any], *, strict: bool = False) -> Any:
    return msgspec.defstruct("Changed", fields, kw_only=True, tag="one", forbid_unknown_fields=strict)


@pytest.mark.parametrize("same", [One, Nested, Strict, int, str | None, list[int], dict[str, Literal["a", "b"]]])
def test_everything_fits_to_itself(same: Any) -> None:
    assert why(same, same) == []


@pytest.mark.parametrize(
    ("reader", "writer", "words"),
    [
        (changed([("name", str), ("room", str)]), One, "room is missing"),
        (changed([("name", int)]), One, "name is string, and not integer"),
        (One, Other, "type may be 'other', which is not known"),
        (Strict, msgspec.defstruct("More", [("name", str), ("room", str)], kw_only=True), "room is not known"),
        (Literal["a"], Literal["a", "b"], "it may be 'b', which is not known"),
        (list[int], list[str], "[] is string, and not integer"),
        (dict[str, int], dict[str, str], "{} is string, and not integer"),
        (int, int | None, "it is null, and not integer"),
        (Literal["a"], str, "it may be any value, which is not known"),
    ],
)
def test_what_does_not_fit_is_named(reader: Any, writer: Any, words: str) -> None:
    assert words in why(reader, writer)


@pytest.mark.parametrize(
    ("reader", "writer"),
    [
        (changed([("name", str), ("room", str, "")]), One),  # a new field with a default
        (One, changed([("name", str), ("room", str)])),  # what a reader ignores
        (float, int),
        (int | None, int),
        (Any, One),
        (Literal["a", "b"], Literal["b"]),
        (One | Other, One),
    ],
)
def test_what_both_understand_fits(reader: Any, writer: Any) -> None:
    assert why(reader, writer) == []


def test_streams_are_compared_in_the_direction_in_which_they_flow() -> None:
    old, new = One, changed([("name", str), ("room", str)])
    reads_new, writes_old = told(new, module="a"), told(old, module="b", reads=False)
    assert misfits("a", reads_new, {"b": writes_old}) == ["s0.v1, from b: room is missing"]
    writes_new, reads_old = told(new, module="a", reads=False), told(old, module="b")
    assert misfits("a", writes_new, {"b": reads_old}) == []


def test_a_request_that_nobody_answers_is_told() -> None:
    site = own()
    found = [name for name, each in site.requests.items() if each.module == "intelligence"]
    assert found, "others ask it"
    gone = found[0]
    without = msgspec.structs.replace(site, requests={n: each for n, each in site.requests.items() if n != gone})
    others = dict.fromkeys(("dashboard", "audio", "operations"), site)
    assert misfits("intelligence", site, others) == []
    assert any(gone in each for each in misfits("intelligence", without, others))


def test_this_release_fits_to_itself_and_names_itself() -> None:
    here = own()
    for module in here.modules:
        assert misfits(module, here, dict.fromkeys([*here.modules, "operations", "relay"], here)) == []
    assert here.name.endswith(here.digest[:6])
    assert msgspec.json.decode(msgspec.json.encode(here), type=Told) == here
    assert all(each.callers for each in here.requests.values())
    assert misfits("nothing", here, {"audio": here}) == ["it has no module nothing"]
