"""A network that sees the mean color of a crop, and photos of people of one color each."""

import cv2
import keras
import numpy as np
import pytest

from keras_scnn.models import Preset, build_branch
from keras_scnn.parameters import ParameterLayout, ParameterSpace
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.protocols.photo_predictions import PhotoPredictor
from keras_scnn.reconstruction.reconstructor import Reconstructor

SIZE = 32


def middle(image) -> FaceBox:
    """The middle of a photo; a black one shows no face."""
    if image.max() < 10:
        raise ValueError("no face found")
    return FaceBox(4, 4, 44, 44)


@pytest.fixture
def color_preset(tiny_face_model, tiny_whitening) -> Preset:
    """Identity and features are linear in the crop's mean color."""
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3))
    color = keras.layers.Rescaling(1 / 255)(keras.layers.GlobalAveragePooling2D()(image))
    encoder = keras.Model(image, color, name="encoder")
    layout = ParameterLayout(tiny_face_model.n_identity, tiny_face_model.n_expression)
    branch = build_branch(encoder, layout, feature_size=4)
    kernel = np.zeros((3, layout.size))
    kernel[:, layout.identity] = np.random.default_rng(0).normal(0, 3, (3, layout.n_identity))
    branch.get_layer("parameters").kernel.assign(kernel)
    space = ParameterSpace(tiny_face_model, tiny_whitening)
    covariance = np.eye(layout.n_identity, dtype=np.float32)
    return Preset(branch, space, "mobilenet_0.5", within_person_covariance=covariance)


@pytest.fixture
def predictor(color_preset, tmp_path) -> PhotoPredictor:
    return PhotoPredictor(
        Reconstructor(color_preset), "0" * 64, tmp_path / "predictions.npz", middle
    )


@pytest.fixture
def people(tmp_path):
    """8 people of one color each, 4 photos a person: root/people/pN/M.png."""
    rng = np.random.default_rng(1)
    for i, (red, green) in enumerate((r, g) for r in (60, 200) for g in (30, 90, 150, 210)):
        folder = tmp_path / "root" / "people" / f"p{i}"
        folder.mkdir(parents=True)
        for k in range(4):
            photo = np.clip([red, green, 60] + rng.normal(0, 3, (48, 48, 3)), 0, 255)
            cv2.imwrite(str(folder / f"{k}.png"), photo.astype(np.uint8))
    return tmp_path / "root"


@pytest.fixture
def pairs_file(people):
    """Two folds of four people; every pair of one person, and as many of two."""
    lines = ["first,second,same,fold"]
    for fold in range(2):
        for p in range(4 * fold, 4 * fold + 4):
            other = 4 * fold + (p + 1) % 4
            for a in range(4):
                for b in range(a):
                    lines.append(f"people/p{p}/{a}.png,people/p{p}/{b}.png,1,{fold}")
                    lines.append(f"people/p{p}/{a}.png,people/p{other}/{b}.png,0,{fold}")
    (people / "pairs").mkdir()
    (people / "pairs" / "all.csv").write_text("\n".join(lines) + "\n")
    return people / "pairs" / "all.csv"
