"""Puts the prompt parts together: examples from the pack, versions from the store, the built-in one from a file."""

import asyncio
import threading
from pathlib import Path
from typing import Final

from quickcomm.intelligence.adapters.prompt_examples import PhraseExamples
from quickcomm.intelligence.adapters.sql_prompts import SqlPrompts
from quickcomm.intelligence.service.prompt_desk import PromptDesk
from quickcomm.intelligence.service.prompt_evaluation import LabelledSet, held_out
from quickcomm.intelligence.service.prompt_version import PromptVersion, make_version
from quickcomm.intelligence.service.prompts import DeployedPrompts
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.site_pack import BUILT_IN, PHRASES_FILE, Phrase, SitePack, load_phrases
from quickcomm.kernel.storage import Database

PROMPT_FILE: Final = "prompt.toml"


class Prompting:
    """`prompts` is what conversations are classified with, `desk` what an operator works with."""

    def __init__(self, database: Database, pack: SitePack, clock: Clock) -> None:
        """Reads one small file; phrases are read when the first example is needed. Raises `ConfigurationError`."""
        self._examples = PhraseExamples.of(pack, lambda: _phrases(pack))

        def make(source: str, origin: str) -> PromptVersion:
            return make_version(source, pack, self._examples, origin)

        path = built_in_file(pack)
        source = _read(path)
        store = SqlPrompts(database)
        self.pack = pack
        self.prompts = DeployedPrompts(store, make(source, str(path)), make, clock)
        self.desk = PromptDesk(store, self.prompts, make, pack, clock, source)

    async def start(self) -> None:
        """Have in force what is deployed, before the first utterance comes."""
        await self.prompts.refresh()

    async def run(self) -> None:
        """Follow the store, until cancelled; meanwhile get the examples ready. Only where a model is connected."""
        stop = threading.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.prompts.run(), name="prompts:follow")
                group.create_task(asyncio.to_thread(self._examples.warm, stop.is_set), name="prompts:examples")
        finally:
            stop.set()


def labelled_set(pack: SitePack, path: Path | None, count: int) -> LabelledSet:
    """Cases to judge prompts by: of a file all, of the pack's own phrases `count`. Raises `ConfigurationError`."""
    phrases = load_phrases(pack, path)
    if path is not None:
        return LabelledSet(name=path.name, cases=tuple(phrases))
    cases = held_out(phrases, count)
    return LabelledSet(name=f"{len(cases)} of the {len(phrases)} phrases of {pack.name}", cases=cases)


def built_in_file(pack: SitePack) -> Path:
    """The pack's own `prompt.toml`, or the one for all packs."""
    own = Path(pack.folder) / PROMPT_FILE
    return own if own.is_file() else BUILT_IN / PROMPT_FILE


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error


def _phrases(pack: SitePack) -> list[Phrase]:
    """A pack may do without: then no examples go along."""
    return load_phrases(pack) if (Path(pack.folder) / PHRASES_FILE).is_file() else []
