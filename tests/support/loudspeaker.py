"""What a page would make people hear and see outside of it: counted, for a machine without a loudspeaker."""

from typing import Final

import msgspec
from playwright.async_api import Page, expect

NOTES: Final = 3
"""Of one sound."""
_COUNT: Final = """
window.counted = { notes: 0, asked: 0, told: [] };
const start = OscillatorNode.prototype.start;
OscillatorNode.prototype.start = function (...at) { window.counted.notes += 1; return start.apply(this, at); };
window.Notification = class {
  static get permission() { return localStorage.getItem('test.permission') ?? 'default'; }
  static async requestPermission() {
    window.counted.asked += 1;
    localStorage.setItem('test.permission', window.answer ?? 'granted');
    return Notification.permission;
  }
  constructor(title, options) { window.counted.told.push(`${title} | ${options.body}`); }
  close() {}
};
"""


class Loudspeaker(msgspec.Struct, frozen=True):
    page: Page

    async def sounds(self) -> int:
        """How often it has sounded since the page was loaded."""
        notes: int = await self.page.evaluate("counted.notes")
        assert notes % NOTES == 0
        return notes // NOTES

    async def until_sounds(self, times: int) -> None:
        """Wait until it has sounded so often; on a slow machine there may be a reminder more."""
        await self.page.wait_for_function(f"counted.notes >= {times * NOTES}")

    async def told(self) -> list[str]:
        """The notifications, with their texts."""
        told: list[str] = await self.page.evaluate("counted.told")
        return told

    async def asked(self) -> int:
        """How often it has asked for permission."""
        asked: int = await self.page.evaluate("counted.asked")
        return asked

    async def enable(self) -> None:
        """Click the switch and hear that it works."""
        switch = self.page.get_by_test_id("sound")
        await expect(switch).to_contain_text("Sound is off")
        await switch.click()
        await expect(switch).to_have_text("Sound on")


async def loudspeaker(page: Page) -> Loudspeaker:
    """Before the page is opened."""
    await page.add_init_script(_COUNT)
    return Loudspeaker(page)
