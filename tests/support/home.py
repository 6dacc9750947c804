"""The mark of a site in its store, which `up` writes before anything else is there."""

from quickcomm.kernel.bus.home import Home, HomeInStore
from quickcomm.kernel.bus.redis_link import Link
from quickcomm.kernel.bus.redis_names import PREFIX

HOME = Home(id="site", whole=True)


async def mark(url: str, prefix: str = PREFIX) -> None:
    link = Link(url)
    try:
        await HomeInStore(link, prefix).write(HOME)
    finally:
        await link.aclose()
