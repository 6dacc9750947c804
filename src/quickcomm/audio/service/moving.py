"""What audio does beside its work while it moves: hand-overs, the shadow of sound, figures for the gates."""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from quickcomm.audio.model.settings import AudioSettings
from quickcomm.audio.ports import SessionStore
from quickcomm.audio.service.conversation import Conversation
from quickcomm.audio.service.front_end import FrontEnd
from quickcomm.audio.service.hand_over import HandOver, Receivers
from quickcomm.audio.service.manager import Manager
from quickcomm.audio.service.overflow import Overflow
from quickcomm.audio.service.share import MODULE, Share
from quickcomm.audio.service.sound_copy import Copies
from quickcomm.audio.service.sound_shadow import SoundShadow
from quickcomm.audio.service.transcriber import Transcriber
from quickcomm.contracts.evidence import MeasureAudio, Measured
from quickcomm.contracts.identity import bucket
from quickcomm.contracts.link import Room, ServedText, SoundCopy
from quickcomm.contracts.migration import OverflowMigration
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.messaging import Messaging
from quickcomm.kernel.messaging.live import Subscription
from quickcomm.kernel.telemetry.measured import Measurements

TELL_EVERY_S: Final = 0.5


class Moving:
    """Harmless where nothing moves. `manage` comes before everything but `share` and `copies`."""

    def __init__(
        self,
        name: str,
        share: Share,
        front_end: FrontEnd,
        transcriber: Transcriber,
        messaging: Messaging,
        clock: Clock,
        settings: AudioSettings,
    ) -> None:
        """`name`: of this process, as the other side knows it."""
        self.share = share
        self._transcriber = transcriber
        self._live = messaging.live
        self._rpc = messaging.rpc
        self._clock = clock
        self._settings = settings
        self._measurements = Measurements(clock, share.side)
        self._receivers = Receivers(share, clock)
        self.copies = Copies(share, self._receivers, settings.shadow_share, self._live.publish, clock)
        self.overflow = Overflow(share, self._receivers, clock, self._give_back)
        self._shadow = SoundShadow(name, share, front_end, transcriber, clock, settings.segmenter)
        self._unbalanced = 0
        """Conversations that ended here with a ledger that does not add up."""

    def manage(self, manager: Manager, store: SessionStore) -> None:
        """Hand over conversations of this manager."""
        self._manager = manager
        self._hand_over = HandOver(
            manager, store, self.share, self._receivers, self._clock, stay_s=self._settings.stay_s
        )
        manager.on_open = self._hand_over.opened
        manager.on_fenced = self._measurements.refused

    @property
    def left(self) -> int:
        """Return how many conversations are still here that the routes give to the other side."""
        return self._hand_over.left

    def subscriptions(self) -> Sequence[Subscription]:
        """Return what tells how the other side is, where audio moves."""
        if not self.share.moves:
            return []
        return [(Room, self._receivers.told), (SoundCopy, self._shadow.copied), (ServedText, self._shadow.served)]

    def begin(self, tasks: asyncio.TaskGroup) -> None:
        """Work until the tasks are cancelled."""
        if self.share.moves:
            tasks.create_task(self._tell_room(), name="audio:room")
            tasks.create_task(self._hand_over.run(), name="audio:hand-over")
            tasks.create_task(self._shadow.run(), name="audio:shadow")

    def published(self, message: UtteranceTranscribed) -> None:
        """Count an utterance that was written down here."""
        self._measurements.client(bucket(MODULE, message.conversation_id))
        self._measurements.answered(message.latency.stt or 0.0, failed=message.unintelligible)
        self.copies.served(message)

    def failed(self) -> None:
        """Count a conversation that could not go on here."""
        self._measurements.answered(0.0, failed=True)

    def over(self, conversation: Conversation) -> None:
        """Look at the ledger of a conversation that is over here."""
        self._unbalanced += conversation.finished and not conversation.account.ended.ledger.balanced

    async def measure(self, request: MeasureAudio) -> Measured:
        """Return the figures of this process since then."""
        found = self._measurements.since(request.since_ns)
        return msgspec.structs.replace(
            found,
            recent_refused=0,
            recent_fenced=found.recent_refused,
            oldest_unanswered_s=max((each.behind_s for each in self._manager.conversations), default=0.0),
            left=self._hand_over.left,
            unbalanced=self._unbalanced,
            recent_not_back=self._hand_over.recent_not_back,
            heard=self._shadow.since(request.since_ns) if self._settings.shadow_share else None,
        )

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _give_back(self, conversation_id: str) -> None:
        await self._rpc.call(OverflowMigration(name=MODULE, conversation_id=conversation_id))

    async def _tell_room(self) -> None:
        """Say how much this process can take, until cancelled."""
        while True:
            self._live.publish(Room(conversations=self._manager.room, stt_backlog_s=self._transcriber.backlog_s))
            await self._clock.sleep(TELL_EVERY_S)
