"""Settings: where they come from, which one wins, and how a wrong one is told."""

from pathlib import Path

import pytest

from quickcomm.apps import MODULES
from quickcomm.audio.declaration import AUDIO
from quickcomm.audio.engine import engine_options
from quickcomm.audio.model.settings import AudioSettings, SttSettings
from quickcomm.intelligence.model.settings import LlmSettings
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.runtime.settings import MetricsSettings, read_sections
from quickcomm.kernel.site_pack import Vocabulary
from quickcomm.operate.settings import FILE, SITE, load_settings
from quickcomm.topology.model.settings import PrioritySettings


def test_nothing_set_is_the_default(tmp_path: Path) -> None:
    assert load_settings(tmp_path, {}, {}) == SITE()
    assert load_settings(tmp_path / "not there", None, {}) == SITE()


def test_every_section_of_a_module_is_a_setting() -> None:
    for module in MODULES:
        for name, kind in module.settings.items():
            assert isinstance(getattr(SITE(), name), kind)
            assert SITE().of(kind) == kind()


def test_flags_over_environment_over_file(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('port = 1\nhost = "file"\npack = "mine"\n[audio]\nidle_limit_s = 5\n')
    environment = {"QUICKCOMM_PORT": "2", "QUICKCOMM_HOST": "environment"}
    found = load_settings(tmp_path, {"port": 3, "host": None, "audio.max_sessions": 7}, environment)
    assert (found.port, found.host, found.pack) == (3, "environment", "mine")
    assert found.of(AudioSettings) == AudioSettings(idle_limit_s=5.0, max_sessions=7)


def test_the_environment_reaches_every_depth(tmp_path: Path) -> None:
    found = load_settings(
        tmp_path,
        {},
        {
            "QUICKCOMM_AUDIO_EARLY_DECODING": "false",
            "QUICKCOMM_AUDIO_SEGMENTER_HANGOVER": "20",
            "QUICKCOMM_AUDIO_SEGMENTER_VOICED_ON": "0.6",
            "QUICKCOMM_STT_MODEL": "base.en",
            "QUICKCOMM_STORAGE_RETENTION_DAYS": "0",
            "QUICKCOMM_CACHE_DIR": "/somewhere",
            "PATH": "/bin",
        },
    )
    assert not found.of(AudioSettings).early_decoding
    assert (found.of(AudioSettings).segmenter.hangover, found.of(AudioSettings).segmenter.voiced_on) == (20, 0.6)
    assert (found.of(SttSettings).model, found.storage.retention_days) == ("base.en", 0)
    assert found.cache == Path("/somewhere")


def test_twilio_is_set_in_the_file_and_its_token_by_the_environment(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('[audio.twilio]\nsite = "annex"\n')
    found = load_settings(tmp_path, {}, {"QUICKCOMM_AUDIO_TWILIO_AUTH_TOKEN": "12345"})
    twilio = found.of(AudioSettings).twilio
    assert (twilio.site, twilio.auth_token) == ("annex", "12345")
    assert "12345" not in repr(found)


def test_a_language_model_is_set_by_flag_and_its_key_by_the_environment(tmp_path: Path) -> None:
    found = load_settings(tmp_path, {"llm.url": "http://127.0.0.1:8000"}, {"QUICKCOMM_LLM_KEY": "12345"})
    assert found.of(LlmSettings) == LlmSettings(url="http://127.0.0.1:8000", key="12345")
    assert "12345" not in repr(found)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("QUICKCOMM_LLM_URL", "localhost:8000", "llm.url"),
        ("QUICKCOMM_LLM_KEY", "secret\n", "QUICKCOMM_LLM_KEY"),
        ("QUICKCOMM_LLM_BUDGET_S", "0", "budget_s"),
        ("QUICKCOMM_LLM_HEDGE_AFTER_S", "-1", "hedge_after_s"),
        ("QUICKCOMM_LLM_MAX_CONCURRENCY", "0", "max_concurrency"),
    ],
)
def test_a_model_that_cannot_be_used_is_told(tmp_path: Path, name: str, value: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        load_settings(tmp_path, {}, {name: value})


def test_priorities_may_be_below_zero_but_not_beyond_what_there_is(tmp_path: Path) -> None:
    found = load_settings(tmp_path, {}, {"QUICKCOMM_PRIORITY_AUDIO": "-5", "QUICKCOMM_PRIORITY_DASHBOARD": "0"})
    assert (
        found.of(PrioritySettings).of("audio"),
        found.of(PrioritySettings).of("dashboard"),
        found.of(PrioritySettings).of("up"),
    ) == (-5, 0, 0)
    assert found.of(PrioritySettings).of("intelligence") > found.of(PrioritySettings).of("edge")
    for value in ("-21", "20", "high"):
        with pytest.raises(ConfigurationError, match="priority"):
            load_settings(tmp_path, {}, {"QUICKCOMM_PRIORITY_AUDIO": value})


@pytest.mark.parametrize(("workers", "processes", "each"), [(0, 1, 2), (0, 2, 1), (0, 8, 1), (3, 2, 3)])
def test_processes_share_the_workers_unless_told_otherwise(
    tmp_path: Path, workers: int, processes: int, each: int
) -> None:
    settings = load_settings(tmp_path, {"stt.workers": workers}, {})
    assert engine_options(settings, Vocabulary(), processes).workers == each


def test_the_engine_gets_the_pack_s_sentence_and_its_words(tmp_path: Path) -> None:
    vocabulary = Vocabulary(spoken_before="Gate to tower.", hotwords=("apron",))
    options = engine_options(load_settings(tmp_path, {}, {}), vocabulary)
    assert (options.spoken_before, options.hotwords) == ("Gate to tower.", ("apron",))


def test_audio_of_its_own_reads_its_share_of_the_same_settings(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('pack = "mine"\n[audio]\nprocesses = 2\n[llm]\nmodel = "x"\n[stt]\nworkers = 3\n')
    environment = {"QUICKCOMM_DASHBOARD_METRICS_OPEN": "true"}
    found = read_sections([AUDIO], tmp_path, {"stt.model": "base"}, environment)
    assert (
        found.pack,
        found.of(AudioSettings).processes,
        found.of(SttSettings).workers,
        found.of(SttSettings).model,
    ) == ("mine", 2, 3, "base")
    assert found.of(MetricsSettings).metrics_open


def test_what_others_read_is_no_setting(tmp_path: Path) -> None:
    names = ("QUICKCOMM_KEY", "QUICKCOMM_URL", "QUICKCOMM_DATA_DIR", "QUICKCOMM_SPEECH_DATA")
    assert load_settings(tmp_path, {}, dict.fromkeys(names, "x")) == SITE()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("QUICKCOMM_PROT", "1", "prot"),
        ("QUICKCOMM_AUDIO_IDLE_LIMIT", "1", "idle_limit"),
        ("QUICKCOMM_PORT", "many", "port"),
        ("QUICKCOMM_AUDIO_SEGMENTER_HANGOVER", "1.5", "hangover"),
    ],
)
def test_a_wrong_one_is_named(tmp_path: Path, name: str, value: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        load_settings(tmp_path, {}, {name: value})


@pytest.mark.parametrize(
    "content", [b"port = ", b"port: 1", b"\xff\xfe", b"audio = 3", b'[audio]\nsegmenter = "fast"', b"nothing = 1"]
)
def test_a_wrong_file_is_told_and_no_stack_trace(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ConfigurationError):
        load_settings(tmp_path, {}, {"QUICKCOMM_AUDIO_SEGMENTER_HANGOVER": "20"})


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(ConfigurationError, match=FILE):
        load_settings(tmp_path, {}, {})
