"""The soak in small: what is said on conversations that stay open takes no more memory the longer they are open."""

from pathlib import Path

from benchmarks.soak import growth, measure
from tests.support.valkey import Valkey


async def test_a_squelched_site_needs_no_more_of_the_store_over_the_day(tmp_path: Path) -> None:
    server = Valkey(tmp_path, "no")
    server.start()
    try:
        rows = await measure(server.url, channels=20, talks=50, every_s=720, rows=5)
    finally:
        server.stop()
    assert len(rows) == 5
    assert growth(rows) < 0.05
    assert len({row.keys for row in rows[1:]}) == 1
    assert max(row.messages for row in rows) == 0
