"""Whether a release of a module understands the other modules of a site, and they it: by the schemas of messages. Pure.

A reader fits a writer where it can read all that the writer may write: no field that it needs is missing, none has
another type or a value that it does not know, and a strict reader knows them all. Bounds and patterns are not compared.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from quickcomm.operate.release import Asked, Told

Schema = Mapping[str, Any]
MOST_TOLD: Final = 5
NUMBERS: Final = {"integer", "number"}


class _Pair(NamedTuple):
    """The components of a reader and of a writer, and the pairs of names that are being compared."""

    reader: Mapping[str, Schema]
    writer: Mapping[str, Schema]
    under_way: set[tuple[str, str]]


def misfits(module: str, release: Told, others: Mapping[str, Told]) -> list[str]:
    """Return why a release of a module does not fit to the other modules of a site; empty where it does.

    `others`: by module, what the release that it runs tells.
    """
    found: list[str] = []
    if module not in release.modules:
        return [f"it has no module {module}"]
    for name, other in others.items():
        if name != module:
            found += _streams(module, release, name, other)
            found += _requests(module, release, name, other)
    return list(dict.fromkeys(found))


def fits(reader: Schema, writer: Schema, told: Told, other: Told) -> list[str]:
    """Return why a message with the schema `writer`, of `other`, cannot be read by `reader`, of `told`."""
    return _fit(reader, writer, _Pair(told.components, other.components, set()), "")


# -- inside -----------------------------------------------------------------------------------------------------------


def _streams(module: str, release: Told, name: str, other: Told) -> Iterator[str]:
    mine, theirs = release.modules[module], other.modules.get(name)
    if theirs is None:
        return
    both = ((mine.reads, theirs.writes, release, other), (theirs.reads, mine.writes, other, release))
    for reads, writes, reader, writer in both:
        for stream in (stream for stream in reads if stream in writes):
            for why in fits(reader.streams[stream], writer.streams[stream], reader, writer):
                yield f"{stream}, from {name if writer is other else module}: {why}"
    unknown = [stream for stream in (*mine.reads, *mine.writes) if stream not in other.streams]
    yield from (f"{stream}: the site has no such stream" for stream in unknown)


def _requests(module: str, release: Told, name: str, other: Told) -> Iterator[str]:
    """Yield what is wrong about requests of the other module to this one, and of this one to the other."""
    for tag, asked in other.requests.items():
        if asked.module == module and name in asked.callers:
            yield from _request(tag, asked, release.requests.get(tag), other, release)
    for tag, asked in release.requests.items():
        if asked.module == name and module in asked.callers:
            yield from _request(tag, asked, other.requests.get(tag), release, other)


def _request(tag: str, asked: Asked, answered: Asked | None, caller: Told, callee: Told) -> Iterator[str]:
    if answered is None:
        yield f"{tag}: {asked.module} of {callee.name} does not answer it"
        return
    yield from (f"{tag}: {why}" for why in fits(answered.request, asked.request, callee, caller))
    yield from (f"the reply to {tag}: {why}" for why in fits(asked.reply, answered.reply, caller, callee))


def _fit(reader: Schema, writer: Schema, pair: _Pair, at: str) -> list[str]:
    """Return why the reader cannot read the writer; what is being compared already is taken to fit."""
    references = reader.get("$ref", ""), writer.get("$ref", "")
    if all(references):
        if references in pair.under_way:
            return []
        pair.under_way.add(references)
    try:
        return list(_fit_options(_resolved(reader, pair.reader), _resolved(writer, pair.writer), pair, at))
    finally:
        pair.under_way.discard(references)


def _fit_options(reader: Schema, writer: Schema, pair: _Pair, at: str) -> Iterator[str]:
    """Yield what is wrong: each possibility of the writer is one of the reader's. Neither is a reference."""
    accepted, written = _options(reader), _options(writer)
    if any(not option for option in accepted):
        return  # it takes everything
    if len(accepted) == len(written) == 1:
        yield from _fit_one(reader, writer, pair, at)
        return
    for one in written:
        whys = [_fit(option, one, pair, at) for option in accepted]
        if all(whys):
            yield from min(whys, key=len)[:MOST_TOLD]


def _fit_one(reader: Schema, writer: Schema, pair: _Pair, at: str) -> Iterator[str]:
    """Yield why one possibility of the writer is not one of the reader's. Neither is a reference."""
    if not reader:
        return
    known, written = _values(reader), _values(writer)
    if known is not None:
        if written is None or not written <= known:
            news = "any value" if written is None else ", ".join(sorted(written - known))
            yield f"{at or 'it'} may be {news}, which is not known"
        return
    kind, other = reader.get("type"), writer.get("type")
    if written is None and kind != other and not (kind == "number" and other in NUMBERS):
        yield f"{at or 'it'} is {other or 'anything'}, and not {kind}"
        return
    yield from _fit_object(reader, writer, pair, at)
    if kind == "array" and "items" in reader and isinstance(reader["items"], Mapping):
        yield from _fit(reader["items"], _items(writer), pair, f"{at}[]")


def _fit_object(reader: Schema, writer: Schema, pair: _Pair, at: str) -> Iterator[str]:
    mine, theirs = reader.get("properties", {}), writer.get("properties", {})
    for name in reader.get("required", ()):
        if name not in theirs:
            yield f"{_inside(at, name)} is missing"
    for name, schema in theirs.items():
        if name in mine:
            yield from _fit(mine[name], schema, pair, _inside(at, name))
        elif reader.get("additionalProperties") is False:
            yield f"{_inside(at, name)} is not known"
    value, written = reader.get("additionalProperties"), writer.get("additionalProperties")
    if isinstance(value, Mapping) and isinstance(written, Mapping):
        yield from _fit(value, written, pair, f"{at}{{}}")


def _items(writer: Schema) -> Schema:
    items = writer.get("items", {})
    if isinstance(items, Mapping):
        return items
    options = writer.get("prefixItems", [])
    return {"anyOf": options} if options else {"const": None}


def _resolved(schema: Schema, components: Mapping[str, Schema]) -> Schema:
    while "$ref" in schema:
        schema = components[schema["$ref"]]
    return schema


def _options(schema: Schema) -> list[Schema]:
    """Return the possibilities: those of a union, of which a tagged one has no `anyOf` of plain types."""
    found = schema.get("anyOf") or schema.get("oneOf")
    return list(found) if found else [schema]


def _values(schema: Schema) -> set[str] | None:
    if "const" in schema:
        return {repr(schema["const"])}
    return {repr(each) for each in schema["enum"]} if "enum" in schema else None


def _inside(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name
