"""The local classifier as a whole, on the small pack: learns, is cached, answers anything, cites the text."""

import asyncio
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from benchmarks.classify import measure
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from scipy.special import erf
from tests.support.examples import examples
from tokenizers import Tokenizer

from quickcomm.contracts.insight import Insight
from quickcomm.intelligence.adapters.embedding import Embedder, find_weights
from quickcomm.intelligence.adapters.local import ENGINE, LocalClassifier, build_local_classifier
from quickcomm.intelligence.model.wording import LIMIT
from quickcomm.intelligence.ports import Classifier, Heard
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.site_pack import SitePack, load_pack, load_phrases

HELD_BACK = Path(__file__).resolve().parent.parent / "data" / "phrases"
HOSTILE = [
    "", " ", "\n\t", "\x00\x1b[31m", "🔥🔥🔥", "a" * 10_000, "412 " * 2_500, "<script>alert('412')</script>",
    "'; DROP TABLE rooms; --", "我的房间着火了", "горит 412", "\u202eevil", "{words} {0} %s",
    "?!.,;:", "\ud7ff\uffff", "and and and , and",
]  # fmt: skip

Array = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def pack() -> SitePack:
    return load_pack("callcentre")


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, float]]:
    return []


@pytest.fixture(scope="module")
def classifier(pack: SitePack, cache: Path, steps: list[tuple[str, float]]) -> Iterator[LocalClassifier]:
    built = build_local_classifier(pack, cache, progress=lambda step, done: steps.append((step, done)))
    yield built
    asyncio.run(built.aclose())


def sound(pack: SitePack, text: str, insights: tuple[Insight, ...]) -> None:
    """What holds for every answer, whatever was said."""
    assert insights
    assert [one.index for one in insights] == list(range(len(insights)))
    for one in insights:
        assert one.intent in pack.intents
        assert one.department in pack.departments
        assert 0 < len(one.summary) <= LIMIT
        assert 0.0 <= one.confidence <= 1.0
        assert one.model == ENGINE
        assert one.source == "local"
        assert (one.urgency == "critical") == (one.intent == pack.emergency.intent)
        assert bool(one.rooms) == bool(one.evidence.rooms)
        for words in (*one.evidence.rooms, *one.evidence.items, *one.evidence.urgency):
            assert words in text


def test_it_is_a_classifier_and_tells_its_progress(classifier: LocalClassifier, steps: list[tuple[str, float]]) -> None:
    port: Classifier = classifier
    assert port.model == ENGINE
    assert steps[-1] == ("done", 1.0)
    assert [done for _, done in steps] == sorted(done for _, done in steps)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_gets_a_sound_answer(classifier: LocalClassifier, pack: SitePack, text: str) -> None:
    (found,) = classifier.understand([text])
    sound(pack, text, found)


@given(texts=st.lists(st.text(max_size=200), max_size=4))
@examples(40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_gets_a_sound_answer(classifier: LocalClassifier, pack: SitePack, texts: list[str]) -> None:
    answers = classifier.understand(texts)
    assert len(answers) == len(texts)
    for text, found in zip(texts, answers, strict=True):
        sound(pack, text, found)


def test_evidence_keeps_the_speaker_s_own_quotes(classifier: LocalClassifier) -> None:
    text = "there’s a gas leak in my kitchen"  # noqa: RUF001 - the typographic quote is the point
    (found,) = classifier.understand([text])
    assert found[0].intent == "emergency"
    assert all(words in text for words in found[0].evidence.urgency)


def test_what_is_said_to_be_urgent_is(classifier: LocalClassifier) -> None:
    (found,) = classifier.understand(["I would like to change my plan asap"])
    assert found[0].urgency == "high"
    assert "asap" in found[0].evidence.urgency


def test_alone_and_in_a_batch_say_the_same(classifier: LocalClassifier, pack: SitePack) -> None:
    texts = [p.text for p in load_phrases(pack, HELD_BACK / "callcentre.jsonl")[:24]]
    together = classifier.understand(texts)
    alone = [classifier.understand([text])[0] for text in texts]
    same = [[i.intent for i in a] == [i.intent for i in b] for a, b in zip(together, alone, strict=True)]
    assert sum(same) >= len(texts) - 1


async def test_many_callers_at_once_all_get_theirs(pack: SitePack, cache: Path, classifier: LocalClassifier) -> None:
    del classifier  # only so that the pack has been learnt
    own = build_local_classifier(pack, cache)
    texts = ["my router is blinking red", "cancel my service please", "there is smoke coming from the meter"]
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(own.classify([Heard(text=text)])) for text in texts * 12]
    for call, text in zip(calls, texts * 12, strict=True):
        (found,) = call.result()
        sound(pack, text, found)
    assert calls[2].result()[0][0].intent == "emergency"
    assert await own.classify([]) == []
    await own.aclose()
    await own.aclose()
    with pytest.raises(ConfigurationError, match="closed"):
        await own.classify([Heard(text="hello")])


def test_a_warm_start_needs_no_training_library(cache: Path, classifier: LocalClassifier) -> None:
    del classifier
    code = (
        "import sys; from pathlib import Path\n"
        "from quickcomm.intelligence.adapters.local import build_local_classifier\n"
        "from quickcomm.kernel.site_pack import load_pack\n"
        "c = build_local_classifier(load_pack('callcentre'), Path(sys.argv[1]))\n"
        "c.understand(['hello'])\n"
        "assert 'sklearn' not in sys.modules\n"
        "print('warm')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(cache)], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "warm"


def test_held_back_phrases_of_the_small_pack(classifier: LocalClassifier, pack: SitePack) -> None:
    figures = measure(pack, classifier, load_phrases(pack, HELD_BACK / "callcentre.jsonl")).summary()
    assert figures["intent"] >= 0.6
    assert figures["rooms_exact"] >= 0.9


@pytest.mark.long
def test_held_back_phrases_of_the_default_pack(cache: Path) -> None:
    hotel = load_pack()
    phrases = load_phrases(hotel, HELD_BACK / "hospitality.jsonl")
    built = build_local_classifier(hotel, cache)
    figures = measure(hotel, built, phrases).summary()
    blind = measure(hotel, built, load_phrases(hotel, HELD_BACK / "hospitality_blind.jsonl")).summary()
    asyncio.run(built.aclose())
    assert figures["intent"] >= 0.83
    assert figures["rooms_exact"] >= 0.95
    assert figures["emergencies_found"] >= 0.94
    assert figures["false_alarms"] <= 0.04
    assert blind["intent"] >= 0.88
    assert blind["department"] >= 0.81
    assert blind["rooms_exact"] >= 0.94
    assert blind["emergencies_found"] >= 0.97
    assert blind["false_alarms"] <= 0.06


def test_weights_can_be_replaced_and_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="lacks"):
        find_weights(tmp_path)
    assert (find_weights() / "tokenizer.json").is_file()


def test_the_converted_encoder_agrees_with_the_published_weights(cache: Path) -> None:
    texts = [
        "Bring two towels to 412",
        "there is smoke",
        "my internet has been down since last night and nobody called",
    ]
    embedder = Embedder(cache)
    got = embedder.embed(texts)
    want = np.stack([reference(text) for text in texts])
    assert np.allclose(np.linalg.norm(got, axis=1), 1.0, atol=1e-4)
    assert ((got * want).sum(axis=1) > 0.98).all()  # int8 against float32
    assert np.allclose(got @ got.T, want @ want.T, atol=0.06)
    assert embedder.embed([]).shape == (0, embedder.size)
    embedder.close()


def reference(text: str) -> Array:
    """BERT as published, in numpy and float32: Devlin et al. (2018), mean pooling."""
    folder = find_weights()
    w = load_file(folder / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    ids = tokenizer.encode(text).ids
    heads, layers = 12, 6

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return np.asarray(scaled * w[f"{name}.weight"] + w[f"{name}.bias"], np.float32)

    def linear(x: Array, name: str) -> Array:
        return np.asarray(x @ w[f"{name}.weight"].T + w[f"{name}.bias"], np.float32)

    def split(x: Array) -> Array:
        return x.reshape(len(ids), heads, -1).transpose(1, 0, 2)

    words, places = w["embeddings.word_embeddings.weight"], w["embeddings.position_embeddings.weight"]
    x = norm(words[ids] + places[: len(ids)] + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for number in range(layers):
        name = f"encoder.layer.{number}"
        q, k, v = (split(linear(x, f"{name}.attention.self.{part}")) for part in ("query", "key", "value"))
        scores = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))
        mixed = (scores / scores.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(ids), -1)
        x = norm(x + linear(mixed, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
        inner = linear(x, f"{name}.intermediate.dense")
        gelu = np.asarray(inner * 0.5 * (1 + erf(inner / math.sqrt(2))), np.float32)
        x = norm(x + linear(gelu, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    pooled = x.mean(axis=0)
    return np.asarray(pooled / np.linalg.norm(pooled), np.float32)
