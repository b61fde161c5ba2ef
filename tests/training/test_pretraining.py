"""Pretrained weights that are already in the run folder."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_scnn.data.records import FaceRecords
from keras_scnn.models import build_branch, build_encoder
from keras_scnn.parameters import ParameterLayout
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.pretraining import (
    WEIGHTS,
    landmark_regressor,
    mean_landmarks,
    pretrain,
)

MEAN = np.random.default_rng(0).uniform(0, 32, (68, 3)).astype(np.float32)


def records_with(landmarks: np.ndarray, weight: np.ndarray | None = None) -> FaceRecords:
    count = len(landmarks)
    images = np.zeros((count, 32, 32, 3), np.uint8)
    numbers = np.arange(count, dtype=np.int32)
    parameters = np.zeros((count, 17), np.float32)
    return FaceRecords(images, parameters, landmarks, numbers, "tiny", weight=weight)


MODE = SimpleNamespace(mixture=SimpleNamespace(records=records_with(MEAN[None])))


def make_branch(name: str, seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return build_branch(build_encoder(name, 32, None), ParameterLayout(3, 2), 8)


def holder(branch: keras.Model) -> SimpleNamespace:
    """A stand-in for a group network, with what ``pretrain`` needs."""
    return SimpleNamespace(get_layer={"branch": branch}.get)


@pytest.fixture
def folder(tmp_path, tiny_encoder):
    """A run folder with pretrained weights."""
    landmark_regressor(make_branch(tiny_encoder, 0), MEAN).save_weights(tmp_path / WEIGHTS)
    return tmp_path


def test_weights_in_the_run_folder_are_loaded_without_training(folder, tiny_encoder):
    branch = make_branch(tiny_encoder, 1)
    pretrain(TrainConfig(run=str(folder)), holder(branch), MODE, np.array([0]))
    expected = make_branch(tiny_encoder, 0).get_layer("first").kernel
    np.testing.assert_array_equal(branch.get_layer("first").kernel, expected)


@pytest.mark.parametrize(
    "harm",
    [lambda content: b"broken", lambda content: content[:-200], lambda content: b""],
    ids=["other", "cut", "empty"],
)
def test_damaged_weights_are_one_line_that_names_the_file(folder, tiny_encoder, harm):
    path = folder / WEIGHTS
    path.write_bytes(harm(path.read_bytes()))
    network = holder(make_branch(tiny_encoder, 1))
    with pytest.raises(ValueError, match=f"^{path}: not pretrained weights .delete it .*") as one:
        pretrain(TrainConfig(run=str(folder)), network, MODE, np.array([0]))
    assert "\n" not in str(one.value)


def test_the_mean_landmarks_are_those_of_the_known_labels():
    """Outputs are relative to them; one NaN made all weights of the encoder NaN."""
    landmarks = np.tile(MEAN, (3, 1, 1)) + np.arange(3, dtype=np.float32)[:, None, None]
    weight = np.ones((3, 68), np.float32)
    weight[2, 5], weight[:, 7] = 0, 0
    landmarks[weight == 0] = np.nan
    mean = mean_landmarks(records_with(landmarks, weight), np.arange(3), 32)
    expected = MEAN + 1
    expected[5], expected[7] = MEAN[5] + 0.5, 15.5
    np.testing.assert_allclose(mean, expected, atol=1e-5)
