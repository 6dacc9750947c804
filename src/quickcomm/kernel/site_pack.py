"""Site packs: what a site says and means, as data. Loaded when a process is made, used by audio and intelligence.

A pack is a folder with `pack.toml` (see docs/site-packs.md) and `phrases.jsonl`, labelled phrases to learn from.
Parsing is strict: unknown keys, names that point nowhere and patterns that do not compile are refused by name.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from quickcomm.contracts.insight import Item, Urgency
from quickcomm.kernel.errors import MALFORMED, ConfigurationError, NotFoundError

DEFAULT_PACK = "hospitality"
PACK_FILE = "pack.toml"
PHRASES_FILE = "phrases.jsonl"
FORMAT = 1
PLACES_PATTERN = "places.pattern"
MOST_SPOKEN_BEFORE: Final = 120
"""Characters of `vocabulary.spoken_before`: each costs time in every utterance."""
SUMMARY_FIELDS = {"items", "place", "to_place", "at_place", "words"}

BUILT_IN = Path(__file__).resolve().parent.parent / "packs"

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Patterns = tuple[str, ...]
"""Regular expressions without regard to case. A space is any white space, `a ?b` also "a-b"; ends are word ends."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table in a pack: frozen, and nothing in it that is not known."""


class Intent(_Part, frozen=True, kw_only=True):
    """Something that people ask for or say. `summary` is a template over `SUMMARY_FIELDS`."""

    description: str
    department: Name
    opens_task: bool
    summary: Annotated[str, msgspec.Meta(min_length=1, max_length=80)]
    urgency: Urgency = "normal"
    cues: Patterns = ()
    """Wordings that speak for this intent; a sign among others, not a verdict."""
    always: Patterns = ()
    """Wordings that settle it, unless there is danger."""
    unless: Patterns = ()
    """Wordings with which it cannot be this intent, whatever the model says: "not done" for a finished job."""


class Department(_Part, frozen=True, kw_only=True):
    """Who acts. `aliases`: what people call them on the air; `cues`: wordings that speak for them."""

    title: str
    aliases: tuple[str, ...] = ()
    cues: Patterns = ()


class UrgencyRule(_Part, frozen=True, kw_only=True):
    """Wordings that raise (or lower) urgency, unless one of `unless` is there too; `always` overrules the model."""

    level: Urgency
    patterns: Patterns
    unless: Patterns = ()
    always: bool = False


class EmergencyRule(_Part, frozen=True, kw_only=True):
    """Wordings of one kind of danger, and who must know first: `patterns` decide, `suspect` only lower the bar."""

    kind: Name
    department: Name
    patterns: Patterns
    suspect: Patterns = ()
    unless: Patterns = ()


class Emergency(_Part, frozen=True, kw_only=True):
    """How danger to people is recognised: high recall first, near misses taken out of the text before that."""

    intent: Name
    channels: Patterns = ()
    """Whole names of channels on which danger is reported: served before all others when speech has to wait."""
    rules: tuple[EmergencyRule, ...] = ()
    near_misses: Patterns = ()
    threshold: Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)] = 0.3
    """Probability of danger from which the learnt model alone raises an emergency."""
    suspect_threshold: Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)] = 0.1
    """The same, where a suspect wording was heard."""
    veto: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.01
    """Below this probability even a certain wording raises none: the model knows the figure of speech."""


class Places(_Part, frozen=True, kw_only=True):
    """How the site numbers its rooms (or accounts, gates, berths) and what else it calls a place.

    `pattern` must match the whole number. With a `registry`, other numbers stay and are flagged as unverified.
    A number right after one of `not_after`, or right before one of `not_before`, is no room, unless `lead` names it.
    """

    noun: str
    pattern: str
    registry: tuple[str, ...] = ()
    lead: tuple[str, ...] = ()
    not_after: Patterns = ()
    not_before: Patterns = ()
    clock_after: Patterns = ()
    """After these a number that can be a time of day ("at 1130") is one."""
    locations: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    """Those of `locations` that are parts of a room: a clause that names only them is about the room named before."""


class ItemName(_Part, frozen=True, kw_only=True):
    """A thing that is asked for: `name` is what the insight says, `aliases` (patterns) what people say."""

    name: str
    aliases: Patterns = ()


class Items(_Part, frozen=True, kw_only=True):
    """Things and their names. `intents`: which have items; `asking`: wordings after which a thing is named."""

    intents: tuple[Name, ...] = ()
    names: tuple[ItemName, ...] = ()
    plain: tuple[str, ...] = ()
    """Things with no other name than their own; plurals are understood."""
    asking: Patterns = ()
    not_items: tuple[str, ...] = ()


class Vocabulary(_Part, frozen=True, kw_only=True):
    """What speech-to-text should expect."""

    spoken_before: Annotated[str, msgspec.Meta(max_length=MOST_SPOKEN_BEFORE)] = ""
    """One or two finished sentences of the site's talk, taken for what was said before each utterance."""
    hotwords: tuple[str, ...] = ()
    """Names that are said often: they decide between two readings of a doubtful utterance."""


class SitePack(_Part, frozen=True, kw_only=True):
    """A whole pack. `digest` identifies pack and phrases: what was learnt from others is not used."""

    format: Literal[1]
    name: Name
    version: str
    title: str
    language: Literal["en"]
    unclear: Name
    """The intent of what could not be understood; also the answer below `certain`."""
    certain: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.3
    nobody: Name
    """The department of what nobody must act on."""
    intents: dict[Name, Intent]
    departments: dict[Name, Department]
    emergency: Emergency
    places: Places
    items: Items = Items()
    urgency: tuple[UrgencyRule, ...] = ()
    vocabulary: Vocabulary = Vocabulary()
    folder: str = ""
    digest: str = ""

    def opens_task(self, intent: str) -> bool:
        found = self.intents.get(intent)
        return found is not None and found.opens_task


class PhraseInsight(_Part, frozen=True, kw_only=True):
    """What a labelled phrase asks, as an insight says it."""

    intent: Name
    department: Name
    urgency: Urgency
    rooms: tuple[str, ...] = ()
    items: tuple[Item, ...] = ()


class Phrase(_Part, frozen=True, kw_only=True):
    """A labelled example: what was said, and the insights it has, in the order spoken."""

    text: str
    insights: Annotated[tuple[PhraseInsight, ...], msgspec.Meta(min_length=1)]
    kind: str = ""
    """What a held-back phrase tests ("reason", "closing"); figures are given for each kind."""


def pack_folder(name_or_path: str | Path) -> Path:
    """Find the folder of a pack that is named (`hospitality`) or pointed to (a folder, or its `pack.toml`)."""
    given = Path(name_or_path)
    if given.name == PACK_FILE and given.is_file():
        return given.parent
    if (given / PACK_FILE).is_file():
        return given
    if re.fullmatch(r"[a-z][a-z0-9_]*", str(name_or_path)) and (BUILT_IN / str(name_or_path) / PACK_FILE).is_file():
        return BUILT_IN / str(name_or_path)
    known = ", ".join(sorted(path.parent.name for path in BUILT_IN.glob(f"*/{PACK_FILE}")))
    raise NotFoundError(f"No site pack {str(name_or_path)!r}: name one of {known}, or a folder with a {PACK_FILE}.")


def load_pack(name_or_path: str | Path = DEFAULT_PACK) -> SitePack:
    """Parse and check a pack. Raises `ConfigurationError` with file and key, `NotFoundError` where there is none."""
    folder = pack_folder(name_or_path)
    path = folder / PACK_FILE
    raw = path.read_bytes()
    try:
        pack = msgspec.toml.decode(raw, type=SitePack)
    except MALFORMED as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if pack.folder or pack.digest:
        raise ConfigurationError(f"{path}: `folder` and `digest` are set by the loader.")
    for problem in _problems(pack):
        raise ConfigurationError(f"{path}: {problem}")
    phrases = folder / PHRASES_FILE
    learnt = phrases.read_bytes() if phrases.is_file() else b""
    digest = hashlib.sha256(raw + b"\0" + learnt).hexdigest()
    return msgspec.structs.replace(pack, folder=str(folder), digest=digest)


def load_phrases(pack: SitePack, path: Path | None = None) -> list[Phrase]:
    """Read the pack's labelled phrases, or those in another file, and check their names; errors tell the line."""
    source = path or Path(pack.folder) / PHRASES_FILE
    if not source.is_file():
        raise ConfigurationError(f"{source}: the pack has no labelled phrases; the classifier cannot learn.")
    decoder = msgspec.json.Decoder(Phrase)
    phrases: list[Phrase] = []
    for number, line in enumerate(source.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            phrase = decoder.decode(line)
        except MALFORMED as error:
            raise ConfigurationError(f"{source}:{number}: {error}") from error
        for insight in phrase.insights:
            if insight.intent not in pack.intents or insight.department not in pack.departments:
                names = f"{insight.intent}/{insight.department}"
                raise ConfigurationError(f"{source}:{number}: no {names} in {pack.name}.")
        phrases.append(phrase)
    return phrases


def compile_patterns(patterns: Patterns) -> re.Pattern[str] | None:
    """One expression for a list of them, bounded by word ends; None for an empty list."""
    if not patterns:
        return None
    body = "|".join(f"(?:{pattern})" for pattern in patterns).replace(" ?", r"[\s-]*").replace(" ", r"\s+")
    return re.compile(rf"(?<![\w])(?:{body})(?![\w])", re.IGNORECASE)


def _problems(pack: SitePack) -> Iterator[str]:
    yield from _dangling(pack)
    yield from _misleading(pack)
    for key, intent in pack.intents.items():
        plain = re.sub(r"\{(\w*)\}", "", intent.summary)
        if unknown := set(re.findall(r"\{(\w*)\}", intent.summary)) - SUMMARY_FIELDS:
            yield f"intents.{key}.summary: unknown field {', '.join(sorted(unknown))}."
        if "{" in plain or "}" in plain:
            yield f"intents.{key}.summary: braces stand only around the name of a field."
    for key, patterns in _all_patterns(pack):
        for pattern in patterns:
            if not pattern.strip():
                yield f"{key}: an empty pattern would match everywhere."
                continue
            if reason := _no_pattern((pattern,), whole=key == PLACES_PATTERN):
                yield f"{key}: {pattern!r} is no regular expression ({reason})."
        if reason := _no_pattern(patterns, whole=key == PLACES_PATTERN):
            yield f"{key}: these patterns cannot stand together ({reason})."


def _no_pattern(patterns: Patterns, *, whole: bool) -> str | None:
    """Why these cannot be compiled in the way in which they are used."""
    try:
        re.compile(patterns[0]) if whole else compile_patterns(patterns)
    except (re.error, OverflowError, RecursionError) as error:
        return str(error)
    return None


def _dangling(pack: SitePack) -> Iterator[str]:
    """Names that point nowhere."""
    departments = [(f"intents.{key}.department", intent.department) for key, intent in pack.intents.items()]
    departments += [(f"emergency.rules.{rule.kind}.department", rule.department) for rule in pack.emergency.rules]
    yield from (
        f"{key}: no department {name!r}."
        for key, name in [*departments, ("nobody", pack.nobody)]
        if name not in pack.departments
    )
    intents = [("unclear", pack.unclear), ("emergency.intent", pack.emergency.intent)]
    intents += [("items.intents", name) for name in pack.items.intents]
    yield from (f"{key}: no intent {name!r}." for key, name in intents if name not in pack.intents)


def _misleading(pack: SitePack) -> Iterator[str]:
    """What is wrong with the sentence that goes before each utterance."""
    sentence = pack.vocabulary.spoken_before
    if sentence and not (sentence == sentence.strip() and sentence.endswith((".", "!", "?"))):
        yield "vocabulary.spoken_before: write whole sentences that end in a full stop, without blanks around them."
    known = {place.lower() for place in pack.places.registry}
    if rooms := [word for word in re.findall(r"[\w-]+", sentence) if word.lower() in known]:
        yield f"vocabulary.spoken_before: {rooms[0]} is in places.registry; name a place that does not exist."


def _all_patterns(pack: SitePack) -> Iterator[tuple[str, Patterns]]:
    yield PLACES_PATTERN, (pack.places.pattern,)
    yield "places.locations", pack.places.locations
    yield "places.within", pack.places.within
    yield "items.plain", pack.items.plain
    yield "places.not_after", pack.places.not_after
    yield "places.not_before", pack.places.not_before
    yield "places.clock_after", pack.places.clock_after
    yield "emergency.channels", pack.emergency.channels
    yield "emergency.near_misses", pack.emergency.near_misses
    yield "items.asking", pack.items.asking
    for rule in pack.emergency.rules:
        yield f"emergency.rules.{rule.kind}", rule.patterns + rule.suspect + rule.unless
    for number, raised in enumerate(pack.urgency):
        yield f"urgency.{number}", raised.patterns + raised.unless
    for item in pack.items.names:
        yield f"items.names.{item.name}", item.aliases
    for key, intent in pack.intents.items():
        yield f"intents.{key}.cues", intent.cues
        yield f"intents.{key}.always", intent.always
        yield f"intents.{key}.unless", intent.unless
    for key, department in pack.departments.items():
        yield f"departments.{key}.cues", department.cues
