"""Makes a value fit a JSON schema, as a model that is held to one does. Used by the fake language model."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

_MAX_DEPTH: Final = 12


def fitted(schema: Mapping[str, Any], value: object, filler: str) -> object:
    """The value as the schema allows it: what it has no place for goes, what is missing is made up from `filler`."""
    return _fit(schema, value, _Root(schema, filler), 0)


class _Root:
    def __init__(self, schema: Mapping[str, Any], filler: str) -> None:
        self._schema, self.filler = schema, filler

    def resolved(self, schema: object) -> Mapping[str, Any]:
        """A part of the schema, with `$ref` followed and the first possibility taken."""
        for _ in range(_MAX_DEPTH):
            if not isinstance(schema, Mapping):
                return {}
            if isinstance(reference := schema.get("$ref"), str):
                schema = self._at(reference)
            elif options := [one for key in ("anyOf", "oneOf", "allOf") for one in schema.get(key, ())]:
                schema = options[0]
            else:
                return schema
        return {}

    def _at(self, reference: str) -> object:
        found: object = self._schema
        for step in reference.removeprefix("#").strip("/").split("/"):
            found = found.get(step, {}) if isinstance(found, Mapping) else {}
        return found


def _fit(part: object, value: object, root: _Root, depth: int) -> object:
    schema = root.resolved(part)
    if "const" in schema:
        return schema["const"]
    if choices := schema.get("enum"):
        return value if value in choices else choices[0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, Sequence) and not isinstance(kind, str) and kind else kind
    if depth > _MAX_DEPTH or kind == "null":
        return None
    if kind == "object":
        return _object(schema, value, root, depth)
    if kind == "array":
        return _array(schema, value, root, depth)
    return _plain(kind, schema, value, root)


def _plain(kind: object, schema: Mapping[str, Any], value: object, root: _Root) -> object:
    if kind == "boolean":
        return value is True
    if kind in {"integer", "number"}:
        number = _number(schema, value)
        return int(number) if kind == "integer" else number
    return value if kind is None and value is not None else _string(schema, value, root)


def _object(schema: Mapping[str, Any], value: object, root: _Root, depth: int) -> dict[str, object]:
    given = value if isinstance(value, Mapping) else {}
    known = schema.get("properties", {})
    wanted = [name for name in known if name in given or name in schema.get("required", ())]
    return {name: _fit(known[name], given.get(name), root, depth + 1) for name in wanted}


def _array(schema: Mapping[str, Any], value: object, root: _Root, depth: int) -> list[object]:
    given = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    given = given[: schema.get("maxItems", len(given))]
    given += [None] * (schema.get("minItems", 0) - len(given))
    return [_fit(schema.get("items", {}), one, root, depth + 1) for one in given]


def _string(schema: Mapping[str, Any], value: object, root: _Root) -> str:
    text = value if isinstance(value, str) else root.filler
    return text[: schema.get("maxLength", len(text))].ljust(schema.get("minLength", 0), ".")


def _number(schema: Mapping[str, Any], value: object) -> float:
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
    low, high = float(schema.get("minimum", number)), float(schema.get("maximum", number))
    return min(max(number, low), max(high, low))
