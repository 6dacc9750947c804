"""Builds the speech-to-text engine that settings name."""

from pathlib import Path
from typing import Final

from quickcomm.audio.model.settings import SttSettings
from quickcomm.audio.module import EngineOptions, SpeechToText, build_engine
from quickcomm.kernel.model_files import ModelStore
from quickcomm.kernel.runtime.settings import Settings
from quickcomm.kernel.site_pack import SitePack, Vocabulary

WORKERS: Final = 2


def model_store(settings: Settings) -> ModelStore:
    return ModelStore(settings.cache, allow_hub=settings.of(SttSettings).allow_hub)


def engine_options(settings: Settings, vocabulary: Vocabulary, processes: int = 1) -> EngineOptions:
    """Return what settings and site pack choose. `processes`: how many share the machine."""
    stt = settings.of(SttSettings)
    return EngineOptions(
        model=stt.model,
        model_path=Path(stt.model_path) if stt.model_path else None,
        language=stt.language,
        spoken_before=vocabulary.spoken_before,
        hotwords=vocabulary.hotwords,
        workers=stt.workers or max(1, WORKERS // processes),
    )


def load_engine(settings: Settings, pack: SitePack, processes: int = 1) -> SpeechToText:
    options = engine_options(settings, pack.vocabulary, processes)
    return build_engine(settings.of(SttSettings).engine, options, model_store(settings))
