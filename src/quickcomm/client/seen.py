"""Which durable events were told already: after a resume the server sends them again."""

from typing import Final

from quickcomm.contracts.audio_socket import DurableEvent, Insights

_AHEAD: Final = 1_024
_IDS: Final = 4_096


class Seen:
    """Remembers a bounded number: the ids of the last utterances, and events that came before their predecessors."""

    def __init__(self, after_seq: int = 0) -> None:
        self.after_seq = after_seq
        """Every event up to this one is known; the server is asked for later ones."""
        self._ahead: set[int] = set()
        self._ids: dict[str, None] = {}

    def is_behind(self, last_seq: int | None) -> bool:
        """Whether a server whose newest event this is has lost events that were told; None: it does not say."""
        return last_seq is not None and last_seq < self.after_seq

    def fresh(self, event: DurableEvent) -> bool:
        if event.seq <= self.after_seq or event.seq in self._ahead:
            return False
        self._ahead.add(event.seq)
        while self.after_seq + 1 in self._ahead or len(self._ahead) > _AHEAD:
            self.after_seq = self.after_seq + 1 if self.after_seq + 1 in self._ahead else min(self._ahead)
            self._ahead.discard(self.after_seq)
        return isinstance(event, Insights) or self._new_id(event.utterance_id)

    def reset(self) -> None:
        """Take events from 1 on as new; utterances that were told stay known."""
        self.after_seq = 0
        self._ahead.clear()

    def _new_id(self, utterance_id: str) -> bool:
        if utterance_id in self._ids:
            return False
        self._ids[utterance_id] = None
        if len(self._ids) > _IDS:
            del self._ids[next(iter(self._ids))]
        return True
