"""Figures of audio for Prometheus."""

from collections.abc import Mapping
from typing import Final

from prometheus_client import Counter, Gauge

SPEECH = Counter("quickcomm_speech_seconds", "Finished speech that was given to speech-to-text")
CONVERSATIONS = Gauge("quickcomm_conversations_connected", "Conversations whose client is connected")
REFUSED = Counter(
    "quickcomm_conversations_refused_total", "New conversations turned away because speech-to-text is behind"
)
SHED = Counter("quickcomm_stt_shed", "Utterances for which work was left out because others waited", ["work"])
IGNORED = Counter(
    "quickcomm_ingest_ignored_total", "Messages of an ingest protocol that were left out", ["ingest", "reason"]
)
SHADOWED_SOUND = Counter(
    "quickcomm_shadow_sound", "What was heard of the other side's conversations, and compared", ["result"]
)
"""Results: `alike`, `words`, `missed`, `extra`, `shed`, `lost`."""
LEVEL = Gauge("quickcomm_stt_shedding_level", "How much optional work speech-to-text leaves out: 0 none to 3")
DEMAND = Gauge(
    "quickcomm_stt_demand_ratio", "The share of speech-to-text that the live conversations ask for; 1 is all of it"
)
_BEHIND = Gauge(
    "quickcomm_audio_behind_seconds", "How long the oldest words of a channel wait for their text", ["channel"]
)
MOST_CHANNELS: Final = 50
OTHERS: Final = "(other channels)"
SHOWN_S: Final = 1.0
"""A channel that is less behind is not shown."""


class BehindGauge:
    """The channels that are furthest behind by name, all others as one: never more than `MOST_CHANNELS` + 1 series."""

    def __init__(self) -> None:
        self._shown: set[str] = set()

    def show(self, behind_s: Mapping[str, float]) -> None:
        """Replace what is shown. `behind_s`: seconds by channel."""
        late = sorted(((s, name) for name, s in behind_s.items() if s >= SHOWN_S), reverse=True)
        shown = {name: s for s, name in late[:MOST_CHANNELS]}
        if len(late) > MOST_CHANNELS:
            shown[OTHERS] = late[MOST_CHANNELS][0]
        for name in self._shown - shown.keys():
            _BEHIND.remove(name)
        for name, s in shown.items():
            _BEHIND.labels(name).set(s)
        self._shown = set(shown)
