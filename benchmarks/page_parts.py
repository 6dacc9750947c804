"""What `benchmarks.page` measures: clicks, a shift that moves the board, alarms on a quiet site, and loading."""

import asyncio
import contextlib
import gzip
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from playwright.async_api import Page, Response, WebSocket

from benchmarks.page_browser import (
    FIRST_BUTTON,
    REST_A_POINTER,
    WATCH_ALARMS,
    WATCH_CLICKS,
    WATCH_LOAD,
    WATCH_SHIFTS,
    Site,
)
from quickcomm.demo_shift import load_shift
from quickcomm.operate.demo import run_shift

GAPS_MS: Final = (120, 350, 800)
DOUBLE_CLICK_MS: Final = 500
"""Below this a browser tells a page that the second click is the second of two."""
SECTIONS: Final = ("high", "normal", "critical")
COLUMNS: Final = ("high", "normal")
UNDO_S: Final = 12.0
"""A page may hold back a closing for some seconds so that it can be undone."""
POINTER_S: Final = 100.0
ALARMS_S: Final = 15.0
QUIET_S: Final = 8.0
"""A board on which nothing changes for so long is as complete as it gets."""
SHORT_QUIET_S: Final = 2.0
BUTTON_S: Final = 30.0
LOAD_LIMIT_S: Final = 90.0
_POLL_S: Final = 0.1
Point = tuple[float, float]

# -- two clicks at the same place ---------


@dataclass(frozen=True, slots=True, kw_only=True)
class Clicks:
    """`closed`: tasks that are done afterwards and were not before. `under_second`: what the second click met."""

    section: str
    wanted_ms: int
    gap_ms: float
    closed: int
    under_second: str


async def clicks(site: Site, gaps_ms: Sequence[int], settle_s: float) -> list[Clicks]:
    """Click twice on a *Done* without moving the mouse, for each gap in each section."""
    return [await _click_twice(site, section, gap, settle_s) for gap in gaps_ms for section in SECTIONS]


async def _click_twice(site: Site, section: str, wanted_ms: int, settle_s: float) -> Clicks:
    async with site.page(WATCH_LOAD, WATCH_CLICKS) as page:
        await _loaded(page, SHORT_QUIET_S)
        buttons = page.locator(f'[data-testid="section-{section}"] [data-testid="complete"]')
        await buttons.first.evaluate("button => button.scrollIntoView({ block: 'center' })")
        async with asyncio.timeout(BUTTON_S):
            x, y = await _button(page, section)
        before = await site.done()
        await page.mouse.move(x - 40, y - 10)
        await page.mouse.move(x, y, steps=5)
        count = 2 if wanted_ms < DOUBLE_CLICK_MS else 1
        async with asyncio.TaskGroup() as sent:  # a real mouse does not wait until the page has dealt with a click
            sent.create_task(_click(page, 1))
            await asyncio.sleep(wanted_ms / 1e3)
            sent.create_task(_click(page, count))
        await asyncio.sleep(settle_s)
        presses: list[dict[str, Any]] = await page.evaluate("window.__presses")
        closed = len(await site.done() - before)
    first, second = presses
    whose = "same" if second["card"] == first["card"] else "other" if second["card"] else "no"
    return Clicks(
        section=section,
        wanted_ms=wanted_ms,
        gap_ms=round(second["at_ms"] - first["at_ms"]),
        closed=closed,
        under_second=f"{second['what']}, {whose} card",
    )


async def _click(page: Page, count: int) -> None:
    async with asyncio.TaskGroup() as sent:
        sent.create_task(page.mouse.down(click_count=count))
        sent.create_task(page.mouse.up(click_count=count))


async def _button(page: Page, section: str) -> Point:
    """Wait until a *Done* of the section is in sight; return its middle."""
    while True:
        point: list[float] | None = await page.evaluate(FIRST_BUTTON, [section, "complete"])
        if point is not None:
            return point[0], point[1]
        await asyncio.sleep(_POLL_S)


# -- what moves while people talk ---------


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """A point over the *Done* of the first card of a column, watched for `seconds`.

    `resting`: the mouse lies there; else the page has no pointer. `other_card`: how often another card than the last
    one was there. `no_card`: how often there was none any more.
    """

    column: str
    resting: bool
    seconds: float
    samples: int
    other_card: int
    no_card: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Layout shifts of a page without a pointer, and what resting pointers had under them."""

    seconds: float
    shifts: int
    shift_sum: float
    shift_sum_90_s: float
    worst: float
    worst_at_s: float
    worst_moved: list[str]
    pointers: list[Pointer]


async def moved(site: Site, seconds: float | None) -> Moved:
    """Play the demo's shift, or its first seconds, before three pages: without a pointer, and with it in a column."""
    async with site.page(WATCH_SHIFTS) as quiet, site.page() as first, site.page() as second:
        began = time.perf_counter()
        began_ms: float = await quiet.evaluate("performance.now()")
        resting = [
            asyncio.ensure_future(_rest(page, quiet, column))
            for page, column in zip((first, second), COLUMNS, strict=True)
        ]
        await _play(site, seconds)
        lasted = time.perf_counter() - began
        pointers = [row for task in resting for row in await _pointers(task)]
        seen: list[dict[str, Any]] = await quiet.evaluate("window.__shifts")
    rows = [row for row in seen if row["at_ms"] >= began_ms]
    nothing: dict[str, Any] = {"value": 0.0, "at_ms": began_ms, "moved": []}
    worst = max(rows, key=lambda row: float(row["value"]), default=nothing)
    first_90 = [row["value"] for row in rows if row["at_ms"] - began_ms <= 90_000]
    return Moved(
        seconds=round(lasted, 1),
        shifts=len(rows),
        shift_sum=round(sum(row["value"] for row in rows), 3),
        shift_sum_90_s=round(sum(first_90), 3),
        worst=round(worst["value"], 3),
        worst_at_s=round((worst["at_ms"] - began_ms) / 1e3, 1),
        worst_moved=worst["moved"],
        pointers=pointers,
    )


async def _play(site: Site, seconds: float | None) -> None:
    playing = asyncio.ensure_future(run_shift(load_shift(), site.url, site.data, lambda _: None))
    await asyncio.wait({playing}, timeout=seconds)
    if not playing.done():
        playing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await playing
        return
    playing.result()


async def _rest(page: Page, quiet: Page, column: str) -> list[Pointer]:
    """Rest the mouse on the first *Done* of the column; the page without a pointer is watched at the same point."""
    x, y = await _button(page, column)
    await page.mouse.move(x - 40, y - 10)
    await page.mouse.move(x, y, steps=5)
    began = time.perf_counter()
    for each in (page, quiet):
        await each.evaluate(REST_A_POINTER, [column, x, y])
    with contextlib.suppress(asyncio.CancelledError):  # when the shift is over, what was seen until then counts
        await asyncio.sleep(POINTER_S)
    seconds = round(time.perf_counter() - began, 1)
    return [
        Pointer(
            column=column,
            resting=each is page,
            seconds=seconds,
            **await each.evaluate("n => window.__pointers[n]", column),
        )
        for each in (page, quiet)
    ]


async def _pointers(task: asyncio.Task[list[Pointer]]) -> list[Pointer]:
    """Return what the pointer has seen; nothing if no card came into its column."""
    task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return []


# -- alarms on a quiet site ---------


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarms:
    """What three pages said about lateness on a site where nobody speaks."""

    cards: int
    each_page: list[list[str]]
    texts: list[str]
    painted_counted: int | None
    painted_sent: int

    @property
    def worst(self) -> int:
        return max(len(codes) for codes in self.each_page)


async def alarms(site: Site, pages: int, seconds: float) -> Alarms:
    """Open pages one after another; all stay open, as on the desks of a hotel."""
    before = await site.painted()
    traffic = [Traffic() for _ in range(pages)]
    async with contextlib.AsyncExitStack() as stack:
        opened: list[Page] = []
        for each in traffic:
            opened.append(await stack.enter_async_context(site.page(WATCH_ALARMS, follow=each.follow)))
            await asyncio.sleep(seconds)
        found: list[dict[str, dict[str, Any]]] = [await page.evaluate("window.__late") for page in opened]
        after = await site.painted()
    return Alarms(
        cards=site.cards,
        each_page=[list(late) for late in found],
        texts=sorted({str(one["text"]) for late in found for one in late.values()}),
        painted_counted=None if after is None else after - (before or 0),
        painted_sent=sum(each.painted_sent for each in traffic),
    )


# -- loading ---------


class Traffic:
    """Counts what a page asks for and hears."""

    def __init__(self) -> None:
        self.requests = 0
        self.websocket_bytes = 0
        self.painted_sent = 0
        self._scripts: list[Response] = []

    def follow(self, page: Page) -> None:
        page.on("request", self._request)
        page.on("websocket", self._websocket)
        page.on("response", self._response)

    async def script_bytes(self) -> tuple[int, int]:
        """Return the size of all scripts that were loaded, plain and gzipped."""
        bodies = [await response.body() for response in self._scripts]
        return sum(map(len, bodies)), sum(len(gzip.compress(body, 9, mtime=0)) for body in bodies)

    def _request(self, _request: object) -> None:
        self.requests += 1

    def _response(self, response: Response) -> None:
        if response.request.resource_type == "script":
            self._scripts.append(response)

    def _websocket(self, socket: WebSocket) -> None:
        socket.on("framereceived", self._received)
        socket.on("framesent", self._sent)

    def _received(self, payload: str | bytes) -> None:
        self.websocket_bytes += len(payload.encode() if isinstance(payload, str) else payload)

    def _sent(self, payload: str | bytes) -> None:
        self.painted_sent += '"painted"' in str(payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One load of the board. Milliseconds from the start of the navigation.

    `complete_ms`: when the number of open tasks came to be right and stayed so; None if it never did.
    """

    open_shown: int
    complete_ms: float | None
    settled_ms: float
    first_card_ms: float | None
    first_paint_ms: float | None
    count_changes: int
    card_changes: int
    requests: int
    http_bytes: int
    websocket_bytes: int
    heap_mb: float
    script_bytes: int
    script_gzip_bytes: int


async def loads(site: Site, open_tasks: int, count: int) -> list[Load]:
    """Load the board several times in one signed-in browser; the sign-in before them is not counted."""
    async with site.page(WATCH_LOAD) as signed_in:
        await _loaded(signed_in)
        return [await _load(site, signed_in, open_tasks) for _ in range(count)]


async def _load(site: Site, signed_in: Page, open_tasks: int) -> Load:
    page = await signed_in.context.new_page()
    traffic = Traffic()
    traffic.follow(page)
    try:
        await page.goto(f"{site.url}/")
        seen = await _loaded(page)
        paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
        sizes = "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        http_bytes: int = await page.evaluate(f"{sizes}.reduce((sum, each) => sum + each.transferSize, 0)")
        first_paint: float | None = await page.evaluate(paint)
        plain, gzipped = await traffic.script_bytes()
        heap_mb = await _heap_mb(page)
    finally:
        await page.close()
    shown = int(seen["open"])
    return Load(
        open_shown=shown,
        complete_ms=round(seen["open_at"]) if shown == open_tasks else None,
        settled_ms=round(max(seen["open_at"], seen["cards_at"])),
        first_card_ms=_rounded(seen["first_card_at"]),
        first_paint_ms=_rounded(first_paint),
        count_changes=seen["open_changes"],
        card_changes=seen["cards_changes"],
        requests=traffic.requests,
        http_bytes=http_bytes,
        websocket_bytes=traffic.websocket_bytes,
        heap_mb=heap_mb,
        script_bytes=plain,
        script_gzip_bytes=gzipped,
    )


async def _loaded(page: Page, quiet_s: float = QUIET_S) -> dict[str, Any]:
    """Wait until nothing has changed on the board for a while; return what `WATCH_LOAD` has noted."""
    while True:
        seen: dict[str, Any] = await page.evaluate("({ ...window.__load, cards: '', now: performance.now() })")
        quiet_ms = seen["now"] - max(seen["open_at"], seen["cards_at"])
        if quiet_ms >= quiet_s * 1e3 or seen["now"] >= LOAD_LIMIT_S * 1e3:
            return seen
        await asyncio.sleep(_POLL_S)


async def _heap_mb(page: Page) -> float:
    session = await page.context.new_cdp_session(page)
    await session.send("HeapProfiler.enable")
    await session.send("HeapProfiler.collectGarbage")
    usage = await session.send("Runtime.getHeapUsage")
    await session.detach()
    return round(float(usage["usedSize"]) / 1e6, 2)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value)
