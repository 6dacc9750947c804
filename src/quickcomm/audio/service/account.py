"""How far a conversation is accounted for: checkpoints, ledgers and the ack, and what of them is durable."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from quickcomm.audio.ports import Progress, Stored
from quickcomm.audio.service.utterance import Finished
from quickcomm.audio.service.voice import Voice
from quickcomm.contracts.audio_socket import Ended
from quickcomm.contracts.conversations import Ledger


class Account:
    def __init__(self, stored: Stored, voices: Sequence[Voice]) -> None:
        self._site = stored.site
        self._id = stored.conversation_id
        self._epoch = stored.epoch
        self._voices = voices
        self.acked = min(checkpoint.offset for checkpoint in stored.checkpoints)
        """Everything before it is durable."""
        self._step = 0
        self.dirty = False
        """Something moved that is not stored yet."""
        self.storing = asyncio.Lock()
        """Held while a publication or a state is stored: what it brings must not be stored, or acked, without it."""

    @property
    def ledgers(self) -> tuple[Ledger, ...]:
        return tuple(voice.ledger for voice in self._voices)

    @property
    def ended(self) -> Ended:
        return Ended(ledger=sum(self.ledgers, Ledger()), speakers=self.ledgers)

    def now(self) -> Progress:
        """As it stands, stored or not."""
        self._step += 1
        return Progress(
            site=self._site,
            conversation_id=self._id,
            epoch=self._epoch,
            step=self._step,
            checkpoints=tuple(voice.checkpoint for voice in self._voices),
            ledgers=self.ledgers,
        )

    def silent(self, item: Finished) -> None:
        """Count an utterance without words as silence."""
        self._voices[item.track.speaker].settled(item.span, speech=False)

    def with_speech(self, item: Finished, pending: Iterable[Finished]) -> tuple[Progress, Callable[[], None]]:
        """Count an utterance; return the progress to be stored with it, and how to undo that where it is not stored."""
        voice = self._voices[item.track.speaker]
        undo = partial(voice.back_to, voice.standing())
        voice.settled(item.span, speech=True)
        return self._moved(voice, (other for other in pending if other is not item)), undo

    def _moved(self, voice: Voice, pending: Iterable[Finished]) -> Progress:
        """With one speaker at the furthest checkpoint that the utterances still `pending` allow."""
        self._move(voice, pending)
        return self.now()

    def progress(self, pending: Sequence[Finished]) -> Progress | None:
        """A checkpoint that is worth storing, or None."""
        if self.storing.locked():
            return None
        found = self.furthest(pending)
        return found if self.dirty else None

    def furthest(self, pending: Sequence[Finished] = ()) -> Progress:
        """Return all speakers at the furthest checkpoints that the utterances still `pending` allow."""
        for voice in self._voices:
            self.dirty |= self._move(voice, pending)
        return self.now()

    def saved(self, progress: Progress) -> None:
        """That progress is durable. What moved meanwhile is not."""
        if progress.checkpoints == self.now().checkpoints:
            self.dirty = False
        self.acked = max(self.acked, min(checkpoint.offset for checkpoint in progress.checkpoints))

    @staticmethod
    def _move(voice: Voice, pending: Iterable[Finished]) -> bool:
        unresolved = (item.span.start for item in pending if item.track is voice.track)
        best = voice.track.best_checkpoint(min(unresolved, default=None))
        if best is not None:
            voice.move_to(best)
        return best is not None
