"""Writes web/src/api/schema.ts: the types of the server's answers and messages, for the page.

`python -m tools.page.schema`, after a change of what the server sends. A test holds the file against the server.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from quickcomm.dashboard.adapters.openapi import document
from quickcomm.dashboard.adapters.rest import OPERATIONS

TARGET: Final = Path(__file__).resolve().parents[2] / "web/src/api/schema.ts"
_HEAD: Final = "/** What the server sends and takes. Made by `python -m tools.page.schema`; do not edit. */\n"
_LIVE: Final = {"LiveEvent": "sends", "PageMessage": "receives"}
_PLAIN: Final = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}
_ANY: Final = "Record<string, unknown>"

Schema = Mapping[str, Any]


def page_types(openapi: Schema) -> str:
    """Return TypeScript for the schemas of `openapi`. A field that may be missing is optional (`name?:`)."""
    live = openapi["paths"]["/v1/live"]["get"]["x-websocket"]
    schemas: Mapping[str, Schema] = openapi["components"]["schemas"]
    parts = [_HEAD]
    parts += ["\n".join(_interface(name, schemas[name])) + "\n" for name in sorted(schemas)]
    parts += [f"export type {name} = {_any_of(live[part])};\n" for name, part in _LIVE.items()]
    return "\n".join(parts)


def _interface(name: str, schema: Schema) -> Iterator[str]:
    required = schema.get("required", ())
    yield f"export interface {name} {{"
    for field, kind in schema["properties"].items():
        yield f"  {field}{'' if field in required else '?'}: {_type(kind)};"
    yield "}"


def _type(schema: Schema) -> str:
    """Raise `KeyError` for a schema of a kind that the page has no type for yet."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " | ".join(f'"{value}"' for value in schema["enum"])
    if "anyOf" in schema:
        return _any_of(schema["anyOf"])
    if schema["type"] == "array":
        item = _type(schema["items"])
        return f"({item})[]" if "|" in item else f"{item}[]"
    if "additionalProperties" in schema:
        return f"Record<string, {_type(schema['additionalProperties'])}>"
    return _ANY if schema["type"] == "object" else _PLAIN[schema["type"]]


def _any_of(schemas: list[Schema]) -> str:
    return " | ".join(_type(schema) for schema in schemas)


def main() -> None:
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(page_types(document(OPERATIONS)), encoding="utf-8")


if __name__ == "__main__":
    main()
