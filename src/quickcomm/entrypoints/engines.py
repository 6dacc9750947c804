"""Builds the engines that settings name: speech-to-text, the local classifier and the language model."""

from quickcomm.entrypoints.audio_engine import engine_options, load_engine, model_store
from quickcomm.entrypoints.settings import Settings
from quickcomm.intelligence.module import Classifier, LanguageModel, build_classifier, build_model
from quickcomm.kernel.site_pack import SitePack

__all__ = ["engine_options", "load_classifier", "load_engine", "load_model", "model_store"]


def load_classifier(settings: Settings, pack: SitePack) -> Classifier:
    return build_classifier(pack, settings.cache)


def load_model(settings: Settings, _pack: SitePack) -> LanguageModel | None:
    """None where no language model is set."""
    return build_model(settings.llm)
