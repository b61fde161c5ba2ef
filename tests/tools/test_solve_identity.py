"""Embeddings are cached, by the content of the photos and of the recognizers; what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest

from keras_scnn.data.mixture import Mixture
from keras_scnn.data.records import FaceRecords
from keras_scnn.models import load_preset
from keras_scnn.models.presets import read_preset


def of_people(count: int) -> SimpleNamespace:
    """A pack of ten photos each of so many people, without the photos."""
    records = SimpleNamespace(identity=np.repeat(np.arange(count), 10))
    return SimpleNamespace(mixture=SimpleNamespace(records=records))


@pytest.fixture
def made(tool, monkeypatch) -> list[np.ndarray]:
    """The embeddings computed so far, which replace those of networks, in order."""
    arrays = []

    def embed(pack, recognizers):
        arrays.append(np.full((2, 3), len(arrays), np.float32))
        return arrays[-1]

    for name in ("DlibNetwork", "SFaceNetwork"):
        monkeypatch.setattr(tool, name, lambda *weights: SimpleNamespace(size=1))
    monkeypatch.setattr(tool, "read_recognizer", lambda path: (path,))
    monkeypatch.setattr(tool, "read_sface", lambda path: path)
    pack = SimpleNamespace(frames=np.zeros((2, 4, 4, 3)), mixture=of_people(10).mixture)
    monkeypatch.setattr(tool, "read_pack", lambda path: pack)
    monkeypatch.setattr(tool, "check_fits", lambda preset, mixture, source: None)
    monkeypatch.setattr(tool, "teach", lambda pack, raw, sizes, held_out: raw)
    monkeypatch.setattr(tool, "embed", embed)
    return arrays


@pytest.fixture
def args(tmp_path) -> SimpleNamespace:
    files = {name: tmp_path / name for name in ("pack.npz", "dlib.dat", "sface.onnx")}
    for name, path in files.items():
        path.write_text(name)
    pack, recognizer, sface = files.values()
    return SimpleNamespace(
        pack=pack, recognizer=str(recognizer), sface=str(sface), embeddings=None, held_out=0
    )


def test_embeddings_are_computed_again_if_the_content_of_a_file_changes(tool, made, args, tmp_path):
    np.testing.assert_array_equal(tool.open_labels(args, None)[1], made[0])
    np.testing.assert_array_equal(tool.open_labels(args, None)[1], made[0])
    for name in ("pack.npz", "dlib.dat", "sface.onnx"):
        (tmp_path / name).write_text("other")
        before = len(made)
        np.testing.assert_array_equal(tool.open_labels(args, None)[1], made[-1])
        assert len(made) == before + 1, name
    args.embeddings = tmp_path / "given.npy"
    np.save(args.embeddings, np.full((2, 2), 7.0))
    assert (tool.open_labels(args, None)[1] == 7).all() and len(made) == 4


def test_given_embeddings_must_exist_and_be_those_of_the_photos(tool, made, args, tmp_path):
    args.embeddings = tmp_path / "given.npy"
    with pytest.raises(FileNotFoundError, match=r"given\.npy"):
        tool.open_labels(args, None)
    np.save(args.embeddings, np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"given\.npy: the shape is \(3, 2\), not \(2, 2\)"):
        tool.open_labels(args, None)
    assert not made


def test_a_cache_in_a_new_folder_is_made(tool, tmp_path):
    """The folder of an --out that does not exist yet, beside which arrays are cached."""
    array = tool.cached(tool.cache_path(tmp_path / "new" / "out", 1), lambda: np.arange(3.0))
    np.testing.assert_array_equal(array, np.arange(3.0))
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_too_few_people_are_reported_before_photos_are_embedded(tool, made, args, monkeypatch):
    monkeypatch.setattr(tool, "read_pack", lambda path: of_people(9))
    with pytest.raises(ValueError, match="9 people have 10 photos, .*; 10 are needed"):
        tool.open_labels(args, None)
    assert not made


def test_half_an_array_is_no_array(tool, made, args, tmp_path, monkeypatch):
    def stopped(file, array):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(tool.np, "save", stopped)
    with pytest.raises(KeyboardInterrupt):
        tool.open_labels(args, None)
    assert not [path for path in tmp_path.iterdir() if "npy" in path.name]


def photos(size: int, name: str) -> Mixture:
    """Two photos with labels for the face model of a name."""
    arrays = np.zeros((2, size, size, 3), np.uint8), np.zeros((2, 144), np.float32)
    landmarks, person = np.zeros((2, 68, 3), np.float32), np.zeros(2, np.int32)
    return Mixture(FaceRecords(*arrays, landmarks, person, name), np.zeros(2, int))


@pytest.mark.parametrize(
    ("size", "name", "message"),
    [
        (96, "open_face", "PACK: crops of 96 px; the preset needs 120 px"),
        (120, "bfm", "PACK: not for the preset's face model: .* the records are for 'bfm'"),
    ],
)
def test_photos_that_do_not_fit_the_preset_are_refused(tool, size, name, message):
    preset = read_preset("mobile")
    tool.check_fits(preset, photos(120, "open_face"), "PACK")
    with pytest.raises(ValueError, match=message):
        tool.check_fits(preset, photos(size, name), "PACK")


@pytest.mark.parametrize(
    ("preset", "words", "message"),
    [
        (
            "mobile",
            ["--feature-size", "128"],
            "is 128; the preset's feature has 512 already",
        ),
        ("aflw-mobilenet-0.5", [], "preset 'aflw-mobilenet-0.5' has no feature"),
        ("none", [], "no preset 'none'"),
    ],
)
def test_presets_that_cannot_be_solved_are_refused_before_the_labels(
    tool, refused, tmp_path, preset, words, message
):
    error = refused(tool, tmp_path / "no pack.npz", preset, tmp_path / "out", *words)
    assert message in error


@pytest.mark.integration
def test_the_wider_network_gives_the_same_and_more_zeros(tool):
    preset = load_preset("mobile")
    crops = np.random.default_rng(0).integers(0, 255, (2, 120, 120, 3)).astype(np.float32)
    changed = tool.wider(preset, preset.feature_size + 8)
    before, after = (one.core.predict(crops, verbose=0) for one in (preset, changed))
    np.testing.assert_array_equal(after["parameters"], before["parameters"])
    np.testing.assert_allclose(after["features"][:, :-8], before["features"], atol=1e-6)
    assert not after["features"][:, -8:].any()
