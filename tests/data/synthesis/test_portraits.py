"""Rendered people with hair, neck, clothes and glasses."""

import dataclasses

import numpy as np
import pytest

from keras_scnn.data.synthesis import portraits, rendered_people
from keras_scnn.data.synthesis.appearance import random_light
from keras_scnn.data.synthesis.portraits import (
    PortraitPainter,
    dead_leaves,
    draw_behind,
    draw_glasses,
)
from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, render_person
from keras_scnn.geometry.camera import project
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.geometry.shading import shade
from keras_scnn.parameters import FaceParameters, ParameterLayout
from keras_scnn.reconstruction.gaze import gaze_degrees

CONFIG = SyntheticConfig(people=1, photos=8, size=64, portraits=True, spread=0.5)
SIZE, SCALE = 320, 0.8
CAMERA = np.array([[SCALE, 0, 0, 160], [0, -SCALE, 0, 150], [0, 0, SCALE, 0]])
"""A frontal head in the middle of the image."""


@pytest.fixture(scope="module")
def portrait(open_face):
    look = PortraitPainter(open_face, 128).portrait(np.random.default_rng(0))
    return dataclasses.replace(look, volume=20.0, length=80.0, glasses=np.array([1.0, 0, 0]))


def empty():
    return np.full((SIZE, SIZE, 3), 255, np.float32)


def changed(image) -> np.ndarray:
    return (image != 255).any(axis=-1)


def test_the_labels_are_the_projected_parameters(open_face):
    _, vectors, landmarks = render_person(CONFIG, 0)
    outputs = FaceParameters.from_vector(vectors, ParameterLayout(80, 52))
    expected = project(outputs.pose, open_face.landmarks(outputs.identity, outputs.expression))
    np.testing.assert_allclose(landmarks, expected, atol=1e-3)


def test_people_lie_as_near_to_the_mean_face_as_asked():
    def spread(share):
        config = dataclasses.replace(CONFIG, photos=1, portraits=False, spread=share)
        vectors = [render_person(config, person)[1] for person in range(20)]
        return np.concatenate(vectors)[:, ParameterLayout(80, 52).identity].std()

    assert spread(0.5) == pytest.approx(0.5 * spread(1.0), rel=1e-5)


@pytest.mark.integration
def test_both_eyes_of_half_of_the_photos_close(open_face):
    blinks = [open_face.expression_names.index(f"eyeBlink{side}") for side in ("Left", "Right")]
    columns = ParameterLayout(80, 52).expression.start + np.array(blinks)

    def closed(**options):
        config = dataclasses.replace(CONFIG, photos=40, size=8, **options)
        both = np.concatenate([render_person(config, p)[1][:, columns] for p in range(40)])
        return ((both > 0.3) & (both == both[:, :1])).all(axis=1).mean()

    assert closed() == pytest.approx(0.5, abs=0.0375)  # three standard deviations of 1,600
    assert closed(portraits=False) < 0.01


def test_eyes_close_by_the_names_of_ict_facekit_too(open_face, tmp_path):
    """'eyeBlink_L' and 'eyeBlink_R'; with these, portraits never closed both eyes."""
    blinks = [open_face.expression_names.index(f"eyeBlink{side}") for side in ("Left", "Right")]
    names = list(open_face.expression_names)
    names[blinks[0]], names[blinks[1]] = "eyeBlink_L", "eyeBlink_R"
    open_face.replace(expression_names=names).save(tmp_path / "ict.npz")
    config = dataclasses.replace(CONFIG, photos=40, size=8, face_model=str(tmp_path / "ict.npz"))
    columns = ParameterLayout(80, 52).expression.start + np.array(blinks)
    both = render_person(config, 0)[1][:, columns]
    assert 8 < ((both > 0.3) & (both == both[:, :1])).all(axis=1).sum() < 32  # of 40; 0.5 each


def test_eyes_that_close_are_not_wide_open(open_face):
    names = open_face.expression_names
    expressions = np.ones((200, len(names)), np.float32)
    rendered_people._close_eyes(expressions, names, np.random.default_rng(0))
    blink, wide = (expressions[:, names.index(f"eye{unit}Left")] for unit in ("Blink", "Wide"))
    np.testing.assert_array_equal(wide == 0, blink < 1)
    assert (blink >= rendered_people.LEAST_BLINK).all()


def test_both_eyes_of_portraits_look_the_same_way(open_face):
    """Independent weights turned one eye only, or both apart."""
    config = dataclasses.replace(CONFIG, photos=100, size=8)
    expression = render_person(config, 2)[1][:, ParameterLayout(80, 52).expression]
    right, left = np.moveaxis(gaze_degrees(open_face, expression), 1, 0)
    np.testing.assert_allclose(right, left, atol=3.5)  # closing lids turn an eye by 1.6 degrees
    spread = (right + left).std(axis=0) / 2
    np.testing.assert_allclose(spread, rendered_people.GAZE_DEGREES, rtol=0.35)
    names = [name.replace("eyeLook", "look") for name in open_face.expression_names]
    none = np.zeros((3, 52), np.float32)  # a face model without the units is left as it is
    blind = open_face.replace(expression_names=names)
    rendered_people._turn_eyes(none, blind, np.random.default_rng(0))
    assert not none.any()


def test_the_same_seed_gives_the_same_photos():
    first, again = (render_person(CONFIG, 1)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, render_person(CONFIG, 2)[0])


def test_people_differ_in_hair_glasses_and_skin(open_face):
    painter, rng = PortraitPainter(open_face, 64), np.random.default_rng(0)
    people = [painter.portrait(rng) for _ in range(60)]
    assert {bool(one.volume) for one in people} == {True, False}
    assert {bool(one.length) for one in people} == {True, False}
    assert {one.glasses is None for one in people} == {True, False}
    assert np.std([one.skin.mean() for one in people]) > 0.1
    assert all(one.volume or not one.length for one in people), "who is bald has no long hair"
    assert all(one.texture.min() >= 0 and one.texture.max() <= 255 for one in people)


def test_the_main_light_comes_from_the_front():
    """The terms of the second degree are equal on opposite sides."""
    lights = [random_light(np.random.default_rng(i)) for i in range(100)]
    front, back = (np.array([shade([0.0, 0, z], one) for one in lights]) for z in (1, -1))
    assert (front > back).all()


def test_long_hair_covers_the_ears_and_never_the_nose(open_face):
    painter = PortraitPainter(open_face, 128)
    ears, nose = (
        (painter._front < -70) & (painter._height > -40),
        painter._bare & (painter._front > -8),
    )
    for seed in range(10):
        mask = painter._hair_mask(np.random.default_rng(seed), is_long=True)
        assert mask[ears & (painter._height < 20)].mean() > 0.7
        assert mask[nose].max() < 0.05


def test_behind_a_head_there_are_neck_shoulders_and_hair(open_face, portrait):
    posed = project(CAMERA, open_face.mean)
    image, rng = empty(), np.random.default_rng(0)
    draw_behind(image, portrait, CAMERA, posed, open_face.mean, rng)
    drawn, top = changed(image), int(posed[:, 1].min())
    assert drawn[310, 130:190].all(), "shoulders, or the neck between them"
    assert drawn[top - 10, 155:165].all() and not drawn[top - 30].any(), "hair of 20 mm"
    bald = dataclasses.replace(portrait, volume=0.0, length=0.0)
    image = empty()
    draw_behind(image, bald, CAMERA, posed, open_face.mean, np.random.default_rng(0))
    assert not changed(image)[: top + 20].any()


def test_glasses_surround_the_eyes(open_face, portrait):
    landmarks = open_face.mean[open_face.landmark_indices]
    image = empty()
    draw_glasses(image, portrait, CAMERA, landmarks)
    rows, columns = np.nonzero(changed(image))
    eyes = project(CAMERA, landmarks[36:48])[:, :2]
    assert columns.min() < eyes[:, 0].min() and columns.max() > eyes[:, 0].max()
    assert rows.min() < eyes[:, 1].min() and rows.max() > eyes[:, 1].max()
    centers = np.round([eyes[:6].mean(axis=0), eyes[6:].mean(axis=0)]).astype(int)
    assert not changed(image)[centers[:, 1], centers[:, 0]].any(), "the lenses are clear"
    none = empty()
    draw_glasses(none, dataclasses.replace(portrait, glasses=None), CAMERA, landmarks)
    assert not changed(none).any()


@pytest.mark.parametrize("yaw", [-60, 60])
def test_of_a_turned_head_the_near_temple_is_drawn(open_face, yaw):
    turn = rotation_from_euler(np.deg2rad([0.0, yaw, 0.0]))
    camera = np.column_stack([CAMERA[:, :3] @ turn, CAMERA[:, 3]])
    landmarks = open_face.mean[open_face.landmark_indices]
    ears = landmarks[[0, 16]]
    near = ears[project(camera, ears)[:, 2].argmax()]
    *_, temple = portraits._glasses(camera, landmarks)
    assert len(portraits._glasses(camera, landmarks)) == 4
    np.testing.assert_array_equal(temple[-1], near)
    assert len(portraits._glasses(CAMERA, landmarks)) == 5, "both, from the front"


def test_leaves_have_the_spectrum_of_photos():
    """Amplitudes of natural images fall as 1/f (Field, 1987); those of noise do not."""
    slopes = []
    for seed in range(20):
        image = dead_leaves(np.random.default_rng(seed), 128)
        assert image.shape == (128, 128, 3) and image.dtype == np.float32
        power = abs(np.fft.fft2(image.mean(axis=-1))[0, 2:32])
        slopes.append(np.polyfit(np.log(np.arange(2, 32)), np.log(power + 1e-6), 1)[0])
    assert -2.5 < np.mean(slopes) < -0.8
