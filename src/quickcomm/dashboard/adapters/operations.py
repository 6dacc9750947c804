"""One declaration for each operation of the REST interface: a decorated method is its handler and its documentation.

What a method takes is told from its annotations: a `Query` is read from the query, another struct from the body, a
`Principal` is the caller, text is a segment of the path. What it returns is sent as JSON.
"""

import inspect
import json
import re
import types
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from aiohttp import web

from quickcomm.dashboard.adapters import parameters
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.keys import Principal, Role

Handler = Callable[..., Awaitable[Any]]
H = TypeVar("H", bound=Handler)
EXAMPLES: Final = Path(__file__).with_name("examples.json")
_DECLARED: Final = "__operation__"


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of a query, all of them optional. `Meta` has their bounds, descriptions and examples."""


TIME: Final = {"read": "time"}
"""`Meta.extra` of a parameter that is an RFC 3339 time: nanoseconds since the epoch."""
CURSOR: Final = {"read": "cursor"}
"""`Meta.extra` of a parameter that is the `next_cursor` of an earlier answer: a place in a list."""
AFTER: Final = {"read": "after"}
"""`Meta.extra` of a parameter that is the `next_after` of an earlier answer: a point in the changes."""


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str
    schema: dict[str, Any]
    example: Any
    read: Callable[[Mapping[str, str]], Any]
    """Returns None where the parameter is missing. Raises `InvalidInputError`."""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A success. `answer` None: no JSON (a page, metrics, or nothing)."""

    answer: type[msgspec.Struct] | None = None
    status: int = 200
    media_type: str = "application/json"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """`role` None: open to everybody."""

    id: str
    method: Literal["GET", "POST", "DELETE"]
    path: str
    tag: str
    summary: str
    handler: Handler
    role: Role | None
    query: type[Query] | None
    body: type[msgspec.Struct] | None
    sends: Sent
    errors: tuple[int, ...]
    lookup: bool
    """It only reads the database."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return () if self.query is None else parameters_of(self.query)

    @property
    def example(self) -> Any:
        """Return an answer, or None where there is none."""
        return _examples().get(self.id, {}).get("answer")

    @property
    def body_example(self) -> Any:
        return _examples().get(self.id, {}).get("body")

    async def call(self, api: object, request: web.Request, caller: Principal | None, clock: Clock) -> Any:
        """Read what the handler takes, and call it. Raises `InvalidInputError`."""
        given: dict[str, Any] = {}
        for name, kind in _taken(self.handler).items():
            if kind is web.Request:
                given[name] = request
            elif kind is Principal:
                given[name] = caller
            elif kind is str:
                given[name] = request.match_info[name]
            elif kind is self.query:
                given[name] = read_query(self.query, request.query)
            else:
                given[name] = await parameters.body(request, kind, clock)
        return await self.handler(api, **given)


def operation(
    method: Literal["GET", "POST", "DELETE"],
    path: str,
    summary: str,
    *,
    tag: str,
    role: Role | None = "read",
    errors: tuple[int, ...] = (),
    lookup: bool = False,
    sends: Sent | None = None,
) -> Callable[[H], H]:
    """Declare a method as the handler of an operation; its name in camel case is the operation's id.

    `sends`: what a method sends that returns a response of its own. Raises `ConfigurationError` for a
    segment of the path that the method does not take.
    """

    def declare(handler: H) -> H:
        returned = get_type_hints(handler)["return"]
        structs = [kind for kind in _taken(handler).values() if issubclass(kind, msgspec.Struct)]
        declared = Operation(
            id=_camel(handler.__name__),
            method=method,
            path=path,
            tag=tag,
            summary=summary,
            handler=handler,
            role=role,
            query=next((kind for kind in structs if issubclass(kind, Query)), None),
            body=next((kind for kind in structs if not issubclass(kind, Query | Principal)), None),
            sends=sends or Sent(answer=returned if issubclass(returned, msgspec.Struct) else None),
            errors=errors,
            lookup=lookup,
        )
        missing = [name for name in re.findall(r"{(\w+)}", path) if name not in _taken(handler)]
        if missing:
            raise ConfigurationError(f"{declared.id} takes no {missing[0]}.")
        setattr(handler, _DECLARED, declared)
        return handler

    return declare


def operations_of(*apis: type) -> tuple[Operation, ...]:
    """Return the operations that classes declare, in the order of their declaration."""
    return tuple(found for api in apis for each in vars(api).values() if (found := getattr(each, _DECLARED, None)))


@cache
def parameters_of(query: type[Query]) -> tuple[Parameter, ...]:
    hints = get_type_hints(query, include_extras=True)
    found = []
    for field in msgspec.structs.fields(query):
        kind, meta = _described(hints[field.encode_name])
        schema = _schema(kind, meta)
        if field.default is not msgspec.NODEFAULT and field.default is not None:
            schema["default"] = field.default
        found.append(
            Parameter(
                name=field.encode_name,
                description=meta.description or "",
                schema=schema,
                example=meta.examples[0] if meta.examples else None,
                read=_reader(field.encode_name, kind, meta),
            )
        )
    return tuple(found)


Q = TypeVar("Q", bound=Query)


def read_query(kind: type[Q], query: Mapping[str, str]) -> Q:
    """Raises `InvalidInputError` that names the parameter."""
    read = {parameter.name: parameter.read(query) for parameter in parameters_of(kind)}
    return kind(**{name: value for name, value in read.items() if value is not None})


# -- inside -----------------------------------------------------------------------------------------------------------


@cache
def _taken(handler: Handler) -> Mapping[str, type]:
    hints = get_type_hints(handler)
    return {name: hints[name] for name in list(inspect.signature(handler).parameters)[1:]}


def _described(hint: Any) -> tuple[Any, msgspec.Meta]:
    """Return what a parameter is apart from None, and its description."""
    if get_origin(hint) in {Union, types.UnionType}:
        hint = next(each for each in get_args(hint) if each is not types.NoneType)
    if get_origin(hint) is Annotated:
        kind, *rest = get_args(hint)
        return kind, next(each for each in rest if isinstance(each, msgspec.Meta))
    return hint, msgspec.Meta()


def _schema(kind: Any, meta: msgspec.Meta) -> dict[str, Any]:
    if get_origin(kind) is Literal:
        return {"type": "string", "enum": list(get_args(kind))}
    if kind is int and not meta.extra:
        bounds = {"minimum": meta.ge, "maximum": meta.le}
        return {"type": "integer"} | {name: bound for name, bound in bounds.items() if bound is not None}
    schema: dict[str, Any] = {"type": "string", "maxLength": meta.max_length or parameters.MAX_TEXT}
    return schema | (meta.extra_json_schema or {})


def _reader(name: str, kind: Any, meta: msgspec.Meta) -> Callable[[Mapping[str, str]], Any]:
    if get_origin(kind) is Literal:
        return lambda query: parameters.choice(query, name, get_args(kind))
    if meta.extra == TIME:
        return lambda query: parameters.time_ns(query, name)
    if meta.extra == CURSOR:
        return parameters.cursor
    if meta.extra == AFTER:
        return parameters.after
    if kind is int:
        low, high = int(meta.ge or 0), int(meta.le or parameters.MAX_INTEGER)
        return lambda query: parameters.integer(query, name, low=low, high=high)
    return lambda query: parameters.text(query, name, meta.max_length or parameters.MAX_TEXT)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


@cache
def _examples() -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = json.loads(EXAMPLES.read_text(encoding="utf-8"))
    return found
