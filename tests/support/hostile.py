"""What a name or an utterance may be if somebody means ill."""

from typing import Final

MARKUP: Final = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
SQL: Final = "'); DROP TABLE dashboard_utterances; --"
PATH: Final = "../../../etc/passwd"
TEMPLATE: Final = "{words.__class__} {0} %s ${7*7} {{7*7}}"
FTS: Final = '" OR tags : (s) NEAR( * ^ - AND'
TEXTS: Final = {"markup": MARKUP, "SQL": SQL, "path": PATH, "template": TEMPLATE, "search": FTS}

BIDI: Final = "\u202egnihton si 412\u202c \u2066x\u2069"
CONTROL: Final = "\x1b[31mred\x07\x00\x7f\x9b"
UNPRINTABLE: Final = {"bidi": BIDI, "control": CONTROL}
