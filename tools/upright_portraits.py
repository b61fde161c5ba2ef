"""Renderings of people like the crops of a reconstruction's second pass."""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, render_person
from keras_scnn.face_models import load_face_model
from keras_scnn.parameters import FaceParameters, ParameterLayout

PHOTOS, MAX_YAW = 10, 35.0  # of each person; degrees


def upright_portraits(
    people: int, seed: int, size: int
) -> tuple[np.ndarray, FaceParameters, np.ndarray]:
    """Ten portraits each of random people, nearly upright, with a yaw of up to 35 degrees.

    Returns:
        n = 10 * ``people`` crops (n, ``size``, ``size``, 3) uint8 RGB, person by person, their
        parameters, and landmarks (n, 68, 3), crop px and depth.
    """
    config = SyntheticConfig(
        people=people, photos=PHOTOS, seed=seed, yaw_degrees=MAX_YAW, roll_degrees=3.0, spread=0.6,
        portraits=True, size=size,
    )  # fmt: skip
    parts = [render_person(config, person) for person in tqdm(range(people), "rendering")]
    crops, vectors, landmarks = (np.concatenate(column) for column in zip(*parts, strict=True))
    model = load_face_model(config.face_model)
    layout = ParameterLayout(model.n_identity, model.n_expression)
    return crops, FaceParameters.from_vector(vectors, layout), landmarks
