"""The sources of TensorFlow Datasets, on a stand-in with the same functions and features."""

import sys
import types

import cv2
import numpy as np
import pytest
from annotated_faces import (
    matlab_landmarks,
    random_basis,
    random_parameters,
    sent_through_a_pipe,
)

from keras_scnn.data.sources import tfds as tfds_source
from keras_scnn.data.sources.tfds import WINDOW, Tfds300WLP, TfdsAflw2000

COUNT, PEOPLE = WINDOW + 10, 9
BASIS = random_basis()


def people() -> list[dict[str, np.ndarray]]:
    """Arrays of .mat files: PEOPLE faces in turn, each time in another pose."""
    rng = np.random.default_rng(0)
    shapes = [random_parameters(rng)["Shape_Para"] for _ in range(PEOPLE)]
    return [{**random_parameters(rng), "Shape_Para": shapes[i % PEOPLE]} for i in range(COUNT)]


def jpeg(value: int) -> bytes:
    return cv2.imencode(".jpg", np.full((450, 450, 3), value, np.uint8))[1].tobytes()


def examples_300wlp() -> list[dict]:
    """Features as from tensorflow_datasets/datasets/the300w_lp (version 1.0.0)."""
    return [
        {
            "image": jpeg(i),
            "landmarks_3d": (matlab_landmarks(BASIS, arrays)[:2].T / 450).astype(np.float32),
            "shape_params": arrays["Shape_Para"].reshape(-1).astype(np.float32),
            "exp_params": arrays["Exp_Para"].reshape(-1).astype(np.float32),
            "pose_params": arrays["Pose_Para"].reshape(-1).astype(np.float32),
        }
        for i, arrays in enumerate(people())
    ]


def examples_aflw2000() -> list[dict]:
    """Features as from tensorflow_datasets/datasets/aflw2k3d (version 1.0.0)."""
    points = [matlab_landmarks(BASIS, arrays).T.astype(np.float32) for arrays in people()]
    return [
        {
            "image": jpeg(i),
            "landmarks_68_3d_xy_normalized": p[:, :2] / 450,
            "landmarks_68_3d_z": p[:, 2:],
        }
        for i, p in enumerate(points)
    ]


class Builder:
    """Reads slices in order; with images encoded, as the sources ask for."""

    prepared, damaged, slices = True, False, []

    def __init__(self, examples):
        self.examples = examples

    @property
    def info(self):
        split = types.SimpleNamespace(num_examples=len(self.examples))
        return types.SimpleNamespace(splits={"train": split} if self.prepared else {})

    def download_and_prepare(self):
        type(self).prepared = True

    def as_dataset(self, split, decoders, read_config, shuffle_files):
        assert not shuffle_files
        assert read_config.interleave_cycle_length == 1
        self.slices.append(split)
        if self.damaged:
            raise RuntimeError("corrupted record at 12345")
        if isinstance(decoders, PartialDecoding):
            return [{key: e[key] for key in decoders.features} for e in self.examples]
        assert isinstance(decoders["image"], SkipDecoding)
        start, stop = split.removeprefix("train[").removesuffix("]").split(":")
        return self.examples[int(start) : int(stop)]


class PartialDecoding:
    def __init__(self, features):
        self.features = features


class SkipDecoding:
    pass


@pytest.fixture
def tfds(monkeypatch):
    made = {"the300w_lp": examples_300wlp(), "aflw2k3d": examples_aflw2000()}
    module = types.ModuleType("tensorflow_datasets")
    module.builder = lambda name, data_dir=None: Builder(made[name])
    module.decode = types.SimpleNamespace(
        PartialDecoding=PartialDecoding, SkipDecoding=SkipDecoding
    )
    module.ReadConfig = types.SimpleNamespace
    module.as_numpy = iter
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    for name, value in (("prepared", True), ("damaged", False), ("slices", [])):
        monkeypatch.setattr(Builder, name, value)
    tfds_source._window.cache_clear()
    yield module
    tfds_source._window.cache_clear()


def test_equal_shape_parameters_are_one_person(tfds):
    source = Tfds300WLP()
    names = source.names()
    assert len(names) == len(set(names)) == COUNT
    persons = [source.person(name) for name in names]
    assert len(set(persons)) == PEOPLE
    assert all(persons[i] == persons[i % PEOPLE] for i in range(COUNT))
    assert [source.load(name).person for name in names] == persons
    assert source.mirror_of(persons[0]) is None


def test_a_basis_gives_landmarks_with_depth(tfds):
    source = Tfds300WLP(basis=BASIS)
    for i in (0, COUNT - 1):
        photo = source.load(source.names()[i])
        expected = matlab_landmarks(BASIS, people()[i]).T - [1, 1, 0]
        np.testing.assert_allclose(photo.landmarks, expected, atol=1e-3)  # float32 parameters
        assert photo.read_image().shape == (450, 450, 3)
        assert np.abs(photo.read_image().astype(int) - i).max() <= 1


def test_without_a_basis_the_depth_is_unknown(tfds):
    photo = Tfds300WLP().load("train/000003")
    expected = matlab_landmarks(BASIS, people()[3])[:2].T - 1
    np.testing.assert_allclose(photo.landmarks[:, :2], expected, atol=1e-3)
    assert np.isnan(photo.landmarks[:, 2]).all()


def test_neighbors_are_read_together_and_kept(tfds):
    source = Tfds300WLP(basis=BASIS)
    for name in source.names():
        source.load(name)
    assert Builder.slices == ["train", f"train[0:{WINDOW}]", f"train[{WINDOW}:{COUNT}]"]


def test_the_benchmark_has_points_and_nothing_else(tfds):
    source = TfdsAflw2000()
    photo = source.load("train/000070")
    expected = matlab_landmarks(BASIS, people()[70]).T - [1, 1, 0]
    np.testing.assert_allclose(photo.landmarks, expected, atol=1e-3)
    assert len({source.person(name) for name in source.names()}) == COUNT


def test_sources_travel_to_worker_processes(tfds):
    source = Tfds300WLP(basis=BASIS)
    again = sent_through_a_pipe(source)
    expected = source.load("train/000001").landmarks
    np.testing.assert_array_equal(again.load("train/000001").landmarks, expected)
    sent_through_a_pipe(source.load("train/000001"))


def test_a_data_set_that_is_not_there_is_named(tfds):
    Builder.prepared = False
    with pytest.raises(FileNotFoundError, match=r"here: aflw2k3d is not prepared there"):
        TfdsAflw2000("here")


def test_wrong_names_and_damaged_files_are_refused(tfds):
    source = TfdsAflw2000()
    for name in ("train/999999", "test/000000", "image00002.jpg"):
        with pytest.raises(FileNotFoundError, match=f"{name}: aflw2k3d has no such example"):
            source.load(name)
    Builder.damaged = True
    with pytest.raises(ValueError, match=r"aflw2k3d, train\[0:64\]: could not be read \(corrupted"):
        source.load("train/000000")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[tfds\]'"):
        TfdsAflw2000()


def test_an_image_that_cannot_be_decoded_is_refused():
    with pytest.raises(ValueError, match="of no known format, or damaged"):
        tfds_source.decode_image(b"nothing")
