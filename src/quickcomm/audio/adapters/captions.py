"""Shows at once what is said: captions, lateness and utterances as topics of the live channel."""

from collections.abc import Sequence

from quickcomm.contracts.captions import Behind, Caption
from quickcomm.contracts.link import EVERYTHING, Captioned, Committed, FellBehind, Watching
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.live import Live, LostError, Peer, Subscription


class LiveCaptions:
    """Implements `Captions`."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._watching: dict[Peer, dict[str, frozenset[str]]] = {}
        live.on_error(self._failed)

    def subscriptions(self) -> Sequence[Subscription]:
        return [(Watching, self._watch)]

    @property
    def gives_receipts(self) -> bool:
        return bool(self._watching)

    def watched(self, site: str, channel: str) -> bool:
        for sites in self._watching.values():
            channels = sites.get(site)
            if channels is not None and (EVERYTHING in channels or channel in channels):
                return True
        return False

    def caption(self, caption: Caption) -> None:
        if caption.emergency or self.watched(caption.site, caption.channel):
            self._live.publish(Captioned(caption=caption))

    def behind(self, behind: Behind) -> None:
        self._live.publish(FellBehind(behind=behind))

    def published(self, message: UtteranceTranscribed, after: str | None) -> None:
        if after is not None:  # else another process may have published the one before: the stream has the order
            self._live.publish(Committed(message=message, after=after))

    def _watch(self, watching: Watching, peer: Peer) -> None:
        self._watching[peer] = {site: frozenset(channels) for site, channels in watching.sites.items()}

    def _failed(self, peer: Peer, error: QuickCommError) -> None:
        if isinstance(error, LostError):
            self._watching.pop(peer, None)
