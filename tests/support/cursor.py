"""Where a live client is: the dashboard that it has looked at last, and the newest change of it."""

from typing import Any


class Cursor:
    """Give `query` with each connection, and each event that comes to `take`."""

    def __init__(self) -> None:
        self.side = ""
        self.change = 0

    @property
    def query(self) -> dict[str, str]:
        return {"after": f"{self.side}:{self.change}"} if self.change else {}

    def take(self, event: dict[str, Any]) -> None:
        if event["type"] == "hello" and event["side"] != self.side:
            self.side, self.change = event["side"], 0  # another dashboard counts by itself
        if event["type"] == "card":
            self.change = max(self.change, event["card"]["change"])
