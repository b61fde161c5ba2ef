"""Embeddings are cached, by the content of the photos and of the recognizers."""

from types import SimpleNamespace

import numpy as np
import pytest


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
    monkeypatch.setattr(tool, "read_pack", lambda path: of_people(10))
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
    np.testing.assert_array_equal(tool.open_labels(args)[1], made[0])
    np.testing.assert_array_equal(tool.open_labels(args)[1], made[0])
    for name in ("pack.npz", "dlib.dat", "sface.onnx"):
        (tmp_path / name).write_text("other")
        before = len(made)
        np.testing.assert_array_equal(tool.open_labels(args)[1], made[-1])
        assert len(made) == before + 1, name
    args.embeddings = tmp_path / "given.npy"
    np.save(args.embeddings, np.zeros((1, 1)))
    assert tool.open_labels(args)[1].shape == (1, 1) and len(made) == 4


def test_too_few_people_are_reported_before_photos_are_embedded(tool, made, args, monkeypatch):
    monkeypatch.setattr(tool, "read_pack", lambda path: of_people(9))
    with pytest.raises(ValueError, match="9 people have 10 photos, .*; 10 are needed"):
        tool.open_labels(args)
    assert not made


def test_half_an_array_is_no_array(tool, made, args, tmp_path, monkeypatch):
    def stopped(file, array):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(tool.np, "save", stopped)
    with pytest.raises(KeyboardInterrupt):
        tool.open_labels(args)
    assert not [path for path in tmp_path.iterdir() if "npy" in path.name]
