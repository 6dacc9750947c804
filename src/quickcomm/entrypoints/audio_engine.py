"""Builds the speech-to-text engine that settings name."""

from pathlib import Path
from typing import Final, Protocol

from quickcomm.audio.module import EngineOptions, SpeechToText, build_engine
from quickcomm.entrypoints.audio_settings import SttSettings
from quickcomm.kernel.model_files import ModelStore
from quickcomm.kernel.site_pack import SitePack, Vocabulary

WORKERS: Final = 2


class EngineSettings(Protocol):
    """Of any process that hears."""

    @property
    def stt(self) -> SttSettings: ...

    @property
    def cache(self) -> Path: ...


def model_store(settings: EngineSettings) -> ModelStore:
    return ModelStore(settings.cache, allow_hub=settings.stt.allow_hub)


def engine_options(settings: EngineSettings, vocabulary: Vocabulary, processes: int = 1) -> EngineOptions:
    """Return what settings and site pack choose. `processes`: how many share the machine."""
    stt = settings.stt
    return EngineOptions(
        model=stt.model,
        model_path=Path(stt.model_path) if stt.model_path else None,
        language=stt.language,
        spoken_before=vocabulary.spoken_before,
        hotwords=vocabulary.hotwords,
        workers=stt.workers or max(1, WORKERS // processes),
    )


def load_engine(settings: EngineSettings, pack: SitePack, processes: int = 1) -> SpeechToText:
    options = engine_options(settings, pack.vocabulary, processes)
    return build_engine(settings.stt.engine, options, model_store(settings))
