"""A room or another place as it stands in a text."""

import msgspec


class Mention(msgspec.Struct, frozen=True, kw_only=True):
    """Something in the text: `value` is how it is written, `words` is `text[start:end]`."""

    value: str
    words: str
    start: int
    end: int
    guessed: bool = False
    """Read from words that sound like a number ("ate fifteen"): believed only where the words around it agree."""
    likely: bool = True
    """False for a number that is rather a time or a list ("at 4.30"): believed only where the site has such a room."""
    doubtful: bool = False
    """It may be a door or something else, see `doubtful_numbers`."""
