"""A prompt version as a file: parsed strictly, named by its content, rendered with the site pack. Pure.

Only names are put into the template (`string.Template`): a prompt file is data and runs nothing.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from string import Template
from typing import Annotated, Any, Final, Literal

import msgspec

from quickcomm.kernel.errors import MALFORMED, ConfigurationError
from quickcomm.kernel.site_pack import SitePack

ID_LENGTH: Final = 12
MAX_SOURCE: Final = 65_536
MAX_SYSTEM: Final = 12_000
"""Characters of the rendered system message: some 3,000 tokens, all paid for with every utterance."""
_ALIASES_SHOWN, _WORDINGS_SHOWN, _ROOMS_SHOWN = 6, 24, 60
_PLAIN: Final = re.compile(r"[a-z' ]{3,30}")


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table: nothing in it that is not known."""


class ModelParameters(_Part, frozen=True, kw_only=True):
    temperature: Annotated[float, msgspec.Meta(ge=0.0, le=2.0)] = 0.0
    max_tokens: Annotated[int, msgspec.Meta(ge=50, le=4_000)] = 500


class ExampleParameters(_Part, frozen=True, kw_only=True):
    """Which labelled phrases go along: the `count` most like the utterance, at most `per_intent` of one intent."""

    count: Annotated[int, msgspec.Meta(ge=0, le=16)] = 4
    per_intent: Annotated[int, msgspec.Meta(ge=1, le=16)] = 2


class AnswerParameters(_Part, frozen=True, kw_only=True):
    """What the schema asks for beside the labels. Fewer fields are fewer tokens, and a sooner answer."""

    summary: bool = True
    evidence: bool = True
    confidence: bool = True


class PromptFile(_Part, frozen=True, kw_only=True):
    """`system` is the template of the system message; `context`: how many earlier utterances are shown."""

    format: Literal[1]
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,59}$")]
    note: Annotated[str, msgspec.Meta(max_length=500)] = ""
    system: Annotated[str, msgspec.Meta(min_length=1)]
    context: Annotated[int, msgspec.Meta(ge=0, le=10)] = 3
    model: ModelParameters = ModelParameters()
    examples: ExampleParameters = ExampleParameters()
    answer: AnswerParameters = AnswerParameters()


def parse_prompt(source: str, pack: SitePack, origin: str = "prompt") -> PromptFile:
    """Parse and check, as far as rendering it. Raises `ConfigurationError` that names `origin` and the key."""
    if len(source.encode(errors="replace")) > MAX_SOURCE:
        raise ConfigurationError(f"{origin}: a prompt file has at most {MAX_SOURCE:,} bytes.")
    try:
        file = msgspec.toml.decode(source, type=PromptFile)
    except MALFORMED as error:
        raise ConfigurationError(f"{origin}: {error}") from error
    try:
        render(file, pack)
    except ConfigurationError as error:
        raise ConfigurationError(f"{origin}: {error}") from error
    return file


def content_id(file: PromptFile) -> str:
    """The id of what the file says: comments, spaces, the order of keys and spelt-out defaults make no difference."""
    canonical = msgspec.json.encode(_spelt_out(file), order="sorted")
    return hashlib.sha256(canonical).hexdigest()[:ID_LENGTH]


def _spelt_out(part: msgspec.Struct) -> dict[str, Any]:
    """All that differs from the defaults: a key that is invented later changes no id of today."""
    said: dict[str, Any] = {}
    for field in msgspec.structs.fields(part):
        value = getattr(part, field.name)
        if value != field.default:
            said[field.encode_name] = _spelt_out(value) if isinstance(value, msgspec.Struct) else value
    return said


def render(file: PromptFile, pack: SitePack) -> str:
    """The system message. Raises `ConfigurationError` for what is no template, and for one that gets too long."""
    template, values = Template(file.system), placeholders(pack)
    if not template.is_valid():
        raise ConfigurationError("system: a lone $ stands in the template; write $$ for the sign itself.")
    unknown = sorted(set(template.get_identifiers()) - set(values))
    if unknown:
        known = ", ".join(f"${name}" for name in values)
        raise ConfigurationError(f"system: there is no ${unknown[0]}; known are {known}. Write $$ for the sign itself.")
    text = template.substitute(values).strip()
    if not text:
        raise ConfigurationError("system: the template is empty.")
    if len(text) > MAX_SYSTEM:
        raise ConfigurationError(
            f"system: with this site pack it has {len(text):,} characters, at most {MAX_SYSTEM:,} may be sent."
        )
    return text


def placeholders(pack: SitePack) -> Mapping[str, str]:
    """What a template may name, filled from the pack."""
    return {
        "site": pack.title,
        "intents": "\n".join(_intents(pack)),
        "departments": "\n".join(_departments(pack)),
        "urgency": "\n".join(_urgency(pack)),
        "rooms": _rooms(pack),
        "noun": pack.places.noun,
        "emergency": pack.emergency.intent,
        "unclear": pack.unclear,
        "nobody": pack.nobody,
    }


def _intents(pack: SitePack) -> Iterator[str]:
    for name, intent in pack.intents.items():
        yield f"- {name}: {intent.description} Usually {intent.department}, {intent.urgency}."


def _departments(pack: SitePack) -> Iterator[str]:
    for name, department in pack.departments.items():
        title = department.title.lower()
        aliases = [alias for alias in department.aliases if alias.lower() != title and _PLAIN.fullmatch(alias)]
        called = f" (called {', '.join(aliases[:_ALIASES_SHOWN])})" if aliases else ""
        yield f"- {name}: {department.title}{called}"


def _urgency(pack: SitePack) -> Iterator[str]:
    kinds = list(dict.fromkeys(rule.kind for rule in pack.emergency.rules))
    if kinds:
        kinds_said = ", ".join(kind.replace("_", " ") for kind in kinds)
        yield f"- critical: danger to people now ({kinds_said}); only with the intent {pack.emergency.intent}."
    for level, words in _wordings(pack).items():
        yield f"- {level}: where it is said so or plain from the words, such as {', '.join(words)}."
    yield "- normal: ordinary work."
    quiet = [name for name, intent in pack.intents.items() if intent.urgency == "low"]
    if quiet:
        yield f"- low: for information only, as {', '.join(quiet)} usually are."


def _wordings(pack: SitePack) -> dict[str, list[str]]:
    """A few wordings of each rule that read like words and not like a pattern; every rule has its turn."""
    found: dict[str, list[str]] = {}
    for level in dict.fromkeys(rule.level for rule in pack.urgency):
        rules = [
            [pattern for pattern in rule.patterns if _PLAIN.fullmatch(pattern)]
            for rule in pack.urgency
            if rule.level == level
        ]
        longest = max(map(len, rules), default=0)
        turns = [rule[place] for place in range(longest) for rule in rules if place < len(rule)]
        words = list(dict.fromkeys(turns))[:_WORDINGS_SHOWN]
        if words:
            found[level] = words
    return found


def _rooms(pack: SitePack) -> str:
    places = pack.places
    rule = f"{places.noun} numbers, without spaces; each matches {places.pattern} as a whole."
    if 0 < len(places.registry) <= _ROOMS_SHOWN:
        rule += f" There are: {', '.join(places.registry)}."
    return rule
