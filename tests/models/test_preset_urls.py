"""Presets behind URLs: memory:// and HTTP on loopback; no network."""

import dataclasses
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from stores import fsspec, get, http_server, memory_url, put

from keras_scnn import MorphableModel, ParameterSpace, load_preset, save_preset
from keras_scnn.models import read_preset
from keras_scnn.models.presets import FOLDER, preset_digest, preset_folder
from keras_scnn.storage import downloads

NAMES = ("preset.json", "weights.npz", "face_model.npz", "network.tflite")
MOBILE = FOLDER / "mobile"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("keras_scnn.storage.remote.WAITS", (0.01,))
    return tmp_path / "cache" / "keras_scnn" / "presets"


@pytest.fixture
def url() -> str:
    """The preset 'mobile' in memory, with a file that is no part of it."""
    url = memory_url()
    put(url, MOBILE)
    fs, root = fsspec.core.url_to_fs(url)
    fs.pipe_file(f"{root}/payload.pkl", b"cos\nsystem\n(S'true'\ntR.")
    return url


def printed_digest(folder: Path) -> str:
    """The digest of the output of coreutils' sha256sum, as the reference."""
    names = [name for name in NAMES if (folder / name).is_file()]
    lines = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, check=True)
    return hashlib.sha256(lines.stdout).hexdigest()


def kept(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


def test_a_preset_behind_a_url_is_that_preset(url, cache):
    preset = load_preset(url)
    assert preset.encoder == read_preset("mobile").encoder
    assert preset_digest(url) == preset_digest("mobile")
    there = {name for name in NAMES if (MOBILE / name).is_file()}
    assert set(kept(cache)) == there | {"fetched.json"}


def test_it_is_fetched_once_and_used_without_the_store(url, cache):
    folder = preset_folder(url)
    fs, root = fsspec.core.url_to_fs(url)
    fs.rm(root, recursive=True)
    assert preset_folder(url) == folder == preset_folder(f"{url}/")
    assert preset_folder(f"{url}#sha256={printed_digest(MOBILE)}") == folder


def test_over_http_a_preset_without_a_lite_file_is_enough(tmp_path, cache):
    for name in NAMES[:2]:
        shutil.copy(MOBILE / name, tmp_path)
    with http_server(tmp_path) as address:
        folder = preset_folder(f"{address}#sha256={printed_digest(tmp_path)}")
    assert kept(cache) == ["fetched.json", *sorted(NAMES[:2])]
    assert (folder / "weights.npz").read_bytes() == (MOBILE / "weights.npz").read_bytes()


def test_a_digest_is_checked_wherever_the_preset_is(url, cache):
    digest, wrong = printed_digest(MOBILE), "0" * 64
    message = f"the files have the digest {digest}; expected {wrong}"
    for place in (url, MOBILE, "mobile", MOBILE.as_uri()):
        assert preset_folder(place, digest).is_dir()
        with pytest.raises(ValueError, match=message):
            load_preset(place, digest=wrong)
    for place in (url, MOBILE.as_uri()):
        with pytest.raises(ValueError, match=f"{place.removeprefix('file://')}: {message}"):
            preset_folder(f"{place}#sha256={wrong}")
    assert "fetched.json" in kept(cache)  # the sound one is kept


def test_a_lite_file_that_was_made_in_a_folder_does_not_count(tmp_path):
    for name in NAMES[:2]:
        shutil.copy(MOBILE / name, tmp_path)
    digest = printed_digest(tmp_path)
    (tmp_path / "network.tflite").write_bytes(b"made on first use")
    assert preset_folder(tmp_path, digest) == tmp_path
    url = memory_url()
    put(url, tmp_path)
    with pytest.raises(ValueError, match="the files have the digest"):  # a stranger's does
        preset_folder(url, digest)


def test_another_digest_fetches_the_current_files(url, cache, tmp_path):
    before = preset_folder(url)
    shutil.copytree(MOBILE, tmp_path / "new")
    text = (MOBILE / "preset.json").read_text()
    (tmp_path / "new" / "preset.json").write_text(text + "\n")
    put(url, tmp_path / "new")
    assert (preset_folder(url) / "preset.json").read_text() == text
    after = preset_folder(url, printed_digest(tmp_path / "new"))
    assert after == before and (after / "preset.json").read_text() == text + "\n"


@pytest.fixture(scope="module")
def other_model(tmp_path_factory) -> Path:
    """A preset on a face model of its own."""
    home, preset = tmp_path_factory.mktemp("other") / "mine", load_preset("mobile")
    model = preset.face_model.replace(name="mine", mean=preset.face_model.mean * 1.1)
    space = ParameterSpace(model, preset.space.whitening)
    save_preset(home, dataclasses.replace(preset, space=space))
    return home


def test_a_face_model_of_its_own_is_fetched_too(other_model, cache):
    url = memory_url()
    put(url, other_model)
    preset = load_preset(f"{url}#sha256={printed_digest(other_model)}")
    assert preset.face_model.name == "mine"
    assert kept(cache) == ["face_model.npz", "fetched.json", *NAMES[:2]]
    (other_model / "network.tflite").write_bytes(b"made on first use")
    assert preset_folder(other_model, printed_digest(preset_folder(url))) == other_model


def test_a_damaged_face_model_is_refused_and_not_kept(other_model, cache):
    url = memory_url()
    put(url, other_model)
    fs, root = fsspec.core.url_to_fs(url)
    fs.pipe_file(f"{root}/face_model.npz", b"PK\x03\x04")
    with pytest.raises(ValueError, match=f"^{url}/face_model.npz: not"):
        load_preset(url)
    assert kept(cache) == []


def test_a_face_model_that_is_not_that_of_the_training_is_refused(other_model):
    url = memory_url()
    put(url, other_model)
    fs, root = fsspec.core.url_to_fs(url)
    MorphableModel.open_face().save(other_model.parent / "open.npz")
    fs.pipe_file(f"{root}/face_model.npz", (other_model.parent / "open.npz").read_bytes())
    with pytest.raises(ValueError, match="the network was trained with the face model 'mine'"):
        load_preset(url)


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_missing_file_is_named_and_nothing_is_kept(url, cache, name):
    fs, root = fsspec.core.url_to_fs(url)
    fs.rm_file(f"{root}/{name}")
    with pytest.raises(FileNotFoundError, match=f"{url}/{name}: no such file"):
        load_preset(url)
    assert kept(cache) == []


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("preset.json", b"{}", "preset.json: not the settings of a preset"),
        ("preset.json", b"<html>404</html>", "preset.json: not the settings of a preset"),
        ("weights.npz", b"PK\x03\x04", "weights.npz: not a readable .npz file"),
        ("weights.npz", b"cos\nsystem\n(S'true'\ntR.", "weights.npz: not a readable .npz file"),
    ],
)
def test_files_of_no_preset_are_refused_and_not_kept(url, cache, name, content, message):
    fs, root = fsspec.core.url_to_fs(url)
    fs.pipe_file(f"{root}/{name}", content)
    with pytest.raises(ValueError, match=f"^{url}/{message}"):
        load_preset(url)
    assert kept(cache) == []


def test_a_fetch_that_breaks_off_leaves_nothing(url, cache, monkeypatch):
    def full(path, content):
        path.open("wb").write(content[:100])
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        load_preset(url)
    monkeypatch.undo()
    assert kept(cache) == []


def test_a_cache_that_lost_a_file_is_filled_again(url):
    (preset_folder(url) / "weights.npz").unlink()
    assert read_preset(url).encoder


@pytest.mark.parametrize(
    "end, message",
    [
        ("#md5=0123", "the part from # on must be #sha256= and 64 digits"),
        ("#", "the part from # on must be"),
        ("#sha256=", "64 hexadecimal digits"),
        ("#sha256=xyz", "64 hexadecimal digits"),
    ],
)
def test_a_fragment_that_is_no_digest_is_refused(url, end, message):
    with pytest.raises(ValueError, match=message):
        load_preset(url + end)


def test_two_digests_must_agree():
    with pytest.raises(ValueError, match="differs from the one given"):
        load_preset(f"memory://x#sha256={'0' * 64}", digest="1" * 64)
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        load_preset("mobile", digest="1234")
    same = downloads.split_digest(f"hf://a/b/#sha256={'AB' * 32}", "ab" * 32)
    assert same == ("hf://a/b", "ab" * 32)
    assert downloads.split_digest("a#b/c") == ("a#b/c", "")


def test_a_missing_package_is_named_with_its_command(monkeypatch, url):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"hf://owner/name.*: pip install '.\[hub\]'"):
        load_preset("hf://owner/name")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ImportError, match=r"needs fsspec, .*pip install '.\[hub\]'"):
        load_preset("hf://owner/name")


def test_a_store_that_does_not_answer_is_named(tmp_path):
    with http_server(tmp_path) as address:
        pass
    with pytest.raises(OSError, match=f"{address}/preset.json"):
        load_preset(address)


def test_the_store_is_only_read(url):
    before = get(url)
    load_preset(url)
    assert get(url) == before
