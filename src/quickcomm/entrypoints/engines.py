"""Builds the engines that settings name: speech-to-text, the local classifier and the language model."""

from pathlib import Path

from quickcomm.audio.module import EngineOptions, SpeechToText, build_engine
from quickcomm.entrypoints.settings import Settings
from quickcomm.intelligence.module import Classifier, LanguageModel, build_classifier, build_model
from quickcomm.kernel.model_files import ModelStore
from quickcomm.kernel.site_pack import SitePack


def model_store(settings: Settings) -> ModelStore:
    return ModelStore(settings.cache, allow_hub=settings.stt.allow_hub)


def engine_options(settings: Settings, hotwords: tuple[str, ...]) -> EngineOptions:
    stt = settings.stt
    return EngineOptions(
        model=stt.model,
        model_path=Path(stt.model_path) if stt.model_path else None,
        language=stt.language,
        hotwords=hotwords,
        workers=stt.workers,
    )


def load_engine(settings: Settings, pack: SitePack) -> SpeechToText:
    return build_engine(settings.stt.engine, engine_options(settings, pack.vocabulary.hotwords), model_store(settings))


def load_classifier(settings: Settings, pack: SitePack) -> Classifier:
    return build_classifier(pack, settings.cache)


def load_model(settings: Settings, _pack: SitePack) -> LanguageModel | None:
    """None where no language model is set."""
    return build_model(settings.llm)
