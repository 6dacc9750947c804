"""What messages are made of."""

import gc

from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import Word


def test_words_and_receipts_are_nothing_for_the_garbage_collector() -> None:
    """Lists of cards have thousands: to walk them would stop every thread of the process now and then."""
    assert not gc.is_tracked(Word(text="towels", start_offset=0, end_offset=8_000, confidence=0.9))
    assert not gc.is_tracked(Latency(endpoint=500.0))
