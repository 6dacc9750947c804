"""The demo shift against a server of its own: how much was heard right, and how soon it was on the page."""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

import msgspec

from quickcomm.cli.demo import summary
from quickcomm.demo_shift import load_shift
from quickcomm.operate.child import server
from quickcomm.operate.demo import DemoResult, run_shift


async def _run() -> DemoResult:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        async with server(data, 0, Path(folder) / "log") as url:
            return await run_shift(load_shift(), url, data, lambda _: None)


def main() -> int:
    result = asyncio.run(_run())
    print(summary(load_shift(), result))
    figures = {name: value for name, value in msgspec.to_builtins(result.score).items() if name != "lines"}
    print(json.dumps({"ok": result.ok, **figures}))
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main())
