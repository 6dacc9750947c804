"""Builds the engines that settings name: speech-to-text and the local classifier."""

from pathlib import Path

from quickcomm.audio.module import SpeechToText, build_engine
from quickcomm.entrypoints.settings import Settings
from quickcomm.intelligence.module import Classifier, build_classifier
from quickcomm.kernel.model_files import ModelStore
from quickcomm.kernel.site_pack import SitePack


def load_engine(settings: Settings, pack: SitePack) -> SpeechToText:
    stt = settings.stt
    return build_engine(
        stt.engine,
        store=ModelStore(settings.cache, allow_hub=stt.allow_hub),
        model=stt.model,
        model_path=Path(stt.model_path) if stt.model_path else None,
        language=stt.language,
        hotwords=pack.vocabulary.hotwords,
        workers=stt.workers,
    )


def load_classifier(settings: Settings, pack: SitePack) -> Classifier:
    return build_classifier(pack, settings.cache)
