"""What is left of a text in the files of a site, as it is or in base 64."""

import base64
from collections.abc import Iterator


def forms(text: str) -> Iterator[bytes]:
    """Yield the bytes of a text, as it is and in base 64, wherever it begins in there."""
    raw = text.encode()
    yield raw
    for lead in range(3):
        coded = base64.b64encode(bytes(lead) + raw)
        yield coded[-(-lead * 8 // 6) : (lead + len(raw)) * 8 // 6]
