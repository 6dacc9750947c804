"""A consumer in its own process, to be killed: `python -m tests.support.bus_consumer URL PREFIX STREAM GROUP`.

Says what it is given, a line each. It never lets go of a message whose payload begins with `hold`.
"""

import asyncio
import sys
from collections.abc import Sequence

from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.messaging.bus import Delivery
from quickcomm.kernel.messaging.bus.redis import RedisBus


async def handle(batch: Sequence[Delivery]) -> None:
    for delivery in batch:
        sys.stdout.write(f"{delivery.payload.decode()}\n")
        sys.stdout.flush()
        if delivery.payload.startswith(b"hold"):
            await asyncio.Event().wait()


async def main(url: str, prefix: str, stream: str, group: str) -> None:
    bus = RedisBus(url, SystemClock(), prefix=prefix)
    await bus.subscribe(stream, group, handle)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
