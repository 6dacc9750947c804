"""No module publishes what it has not stored: an event goes out with the state it tells of, or not at all.

Two ways lead to a stream: `append` in the transaction that stores the state (the outbox), and a script of the store
that writes both. Everything else would be lost, or told without being true, by a crash in between.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import quickcomm

SOURCE = Path(quickcomm.__file__).parent
MODULES = ("audio", "intelligence", "dashboard")
WRITES_A_STREAM = "XADD"


def violations(tree: ast.AST, given: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield what goes to a stream by itself: calls of a bus, commands, and appending outside a transaction.

    `given`: the parameters of the function around.
    """
    for node in ast.iter_child_nodes(tree):
        inside = given
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = frozenset(argument.arg for argument in node.args.args)
        elif isinstance(node, ast.Call):
            yield from (f"line {node.lineno}: {wrong}" for wrong in _of_call(node, given))
        yield from violations(node, inside)


def _of_call(call: ast.Call, given: frozenset[str]) -> Iterator[str]:
    first = ast.unparse(call.args[0]) if call.args else ""
    if isinstance(call.func, ast.Name) and call.func.id == "append":
        if first not in {"connection", "self._connection"} or (first == "connection" and first not in given):
            yield "append() to something that no transaction has given"
    elif isinstance(call.func, ast.Attribute):
        whose = ast.unparse(call.func.value)
        if call.func.attr in {"publish", "publish_many"} and whose.rsplit(".", 1)[-1].lstrip("_").endswith("bus"):
            yield f"{whose}.{call.func.attr}() beside its state"
        if first == repr(WRITES_A_STREAM):
            yield "a command writes to a stream, outside a script"


@pytest.mark.parametrize("module", MODULES)
def test_an_event_and_the_state_it_tells_of_are_written_together(module: str) -> None:
    found = [
        f"{path.relative_to(SOURCE)}, {what}"
        for path in sorted((SOURCE / module).rglob("*.py"))
        for what in violations(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    "planted",
    [
        "async def store(self, message):\n    await self._bus.publish('insights.v1', 'c', message)",
        "async def store(link, message):\n    await link.call('XADD', 'insights.v1:0', '*', 'p', message)",
        "async def store(database):\n    connection = database.connect()\n    append(connection, 's', 'k', b'')",
    ],
)
def test_what_is_published_beside_its_state_is_found(planted: str) -> None:
    assert list(violations(ast.parse(planted)))
