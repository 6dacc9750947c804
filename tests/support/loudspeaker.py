"""What a page would make people hear and see outside of it: counted, for a machine without a loudspeaker."""

import asyncio
from typing import Final

import msgspec
from playwright.async_api import Page, expect
from tests.support.page import PATIENCE_MS

NOTES: Final = 3
"""Of one sound."""
_COUNT: Final = """
window.counted = { notes: 0, asked: 0, told: [], heard: () => undefined };
const start = OscillatorNode.prototype.start;
OscillatorNode.prototype.start = function (...at) {
  window.counted.notes += 1;
  window.counted.heard();
  return start.apply(this, at);
};
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

_UNTIL: Final = """(notes) => new Promise((done) => {
  counted.heard = () => { if (counted.notes >= notes) done(null); };
  counted.heard();
})"""


class Loudspeaker(msgspec.Struct, frozen=True):
    page: Page

    async def sounds(self) -> int:
        """How often it has sounded since the page was loaded."""
        notes: int = await self.page.evaluate("counted.notes")
        assert notes % NOTES == 0
        return notes // NOTES

    async def until_sounds(self, times: int) -> None:
        """Wait until it has sounded so often; on a slow machine there may be a reminder more."""
        async with asyncio.timeout(PATIENCE_MS / 1_000):
            await self.page.evaluate(_UNTIL, times * NOTES)

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
