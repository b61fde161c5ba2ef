import io

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from scipy.fft import dctn
from skimage import data

from keras_scnn.models.augmentation import (
    LUMINANCE_STEPS,
    RandomBlocks,
    RandomChannelGain,
    RandomMove,
    RandomNoise,
    cosine_transform,
    photometric_layers,
)

FACE = data.astronaut()[40:200, 140:300].astype(np.float32)
BATCH = np.tile(FACE, (6, 1, 1, 1))
OWN = {
    "gain": lambda: RandomChannelGain(0.2, seed=1),
    "noise": lambda: RandomNoise(20.0, seed=1),
    "blocks": lambda: RandomBlocks(0.5, seed=1),
}


def photometric(strength: float = 1.0, seed: int = 1) -> list[keras.layers.Layer]:
    """``photometric_layers`` with random numbers that depend on the seed."""
    keras.utils.set_random_seed(seed)
    return photometric_layers(strength)


EACH = {**OWN, "all": lambda: keras.Sequential(photometric())}


@pytest.mark.parametrize("name", EACH)
def test_each_image_changes_in_its_own_way_within_the_range(name):
    changed = np.asarray(EACH[name]()(BATCH, training=True))
    assert changed.shape == BATCH.shape and changed.dtype == np.float32
    assert changed.min() >= 0 and changed.max() <= 255
    assert np.isfinite(changed).all()
    distinct = {changed[i].tobytes() for i in range(6)}
    assert len(distinct) >= (2 if name == "blocks" else 6)
    # The picture is still recognizable.
    for image in changed:
        assert np.corrcoef(image.ravel(), FACE.ravel())[0, 1] > 0.6


@pytest.mark.parametrize("name", EACH)
def test_outside_of_training_nothing_changes(name):
    np.testing.assert_array_equal(EACH[name]()(BATCH, training=False), BATCH)


@pytest.mark.parametrize("name", EACH)
def test_a_seed_repeats_the_changes(name):
    one, two = (np.asarray(EACH[name]()(BATCH, training=True)) for _ in range(2))
    np.testing.assert_allclose(one, two, atol=1e-3)


@pytest.mark.parametrize("name", OWN)
def test_settings_survive_saving(name):
    layer = OWN[name]()
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert again.get_config() == layer.get_config()
    np.testing.assert_allclose(again(BATCH, training=True), OWN[name]()(BATCH, training=True))


def test_strength_0_changes_nothing_and_less_than_0_is_refused():
    changed = keras.Sequential(photometric(0))(BATCH, training=True)
    np.testing.assert_allclose(changed, BATCH, atol=1e-2)
    for strength in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"strength is {strength}; it must be 0 or more"):
            photometric_layers(strength)


def test_every_layer_has_random_numbers_of_its_own():
    chains = [photometric(seed=seed) for seed in range(20)]
    seeds = [int(layer.generator.state[0]) for layers in chains for layer in layers]
    assert len(seeds) == len(set(seeds)) == 20 * 9
    assert not set(seeds) & set(range(1000))  # the seeds of other layers of a network


def test_noise_is_white_and_of_the_size_asked_for():
    gray = np.full((300, 16, 16, 3), 128, np.float32)
    noise = np.asarray(RandomNoise(10.0, seed=1)(gray, training=True)) - 128
    each = noise.std(axis=(1, 2, 3))
    # Uniform from 0 to 10.
    assert each.mean() == pytest.approx(5, abs=0.6)
    assert each.max() < 11
    assert np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1] == pytest.approx(
        0, abs=0.02
    )


def test_gains_are_a_factor_of_each_channel():
    gray = np.full((500, 4, 4, 3), 60, np.float32)
    factor = np.asarray(RandomChannelGain(0.2, seed=1)(gray, training=True)) / 60
    assert np.ptp(factor, axis=(1, 2)).max() < 1e-5
    logs = np.log(factor[:, 0, 0])
    assert logs.std() == pytest.approx(0.2, rel=0.1)
    assert np.corrcoef(logs[:, 0], logs[:, 1])[0, 1] == pytest.approx(0, abs=0.15)


def test_colors_become_paler_and_stronger():
    """Saturation of HSV: (highest - lowest) / highest channel."""
    (layer,) = (x for x in photometric() if isinstance(x, keras.layers.RandomSaturation))
    color = np.tile(np.float32([120, 100, 90]), (200, 4, 4, 1))
    changed = np.asarray(layer(color, training=True))[:, 0, 0]
    saturation = np.ptp(changed, axis=1) / changed.max(axis=1) / (30 / 120)
    assert saturation.min() < 0.5 and saturation.max() > 1.5


def test_the_cosine_transform_is_scipys():
    block = np.random.default_rng(0).normal(size=(8, 8))
    d = cosine_transform().astype(float)
    np.testing.assert_allclose(d @ block @ d.T, dctn(block, norm="ortho"), atol=1e-5)


def test_blocks_are_those_of_jpeg():
    """A gray picture at quality 50, whose steps are the standard's table, by Pillow's own coder."""
    gray = np.repeat(FACE.mean(axis=-1, keepdims=True), 3, axis=-1).round()
    coded = io.BytesIO()
    PIL.Image.fromarray(gray[..., 0].astype(np.uint8)).save(coded, "jpeg", quality=50)
    expected = np.asarray(PIL.Image.open(coded), np.float32)
    layer = RandomBlocks(1.0, coarseness=(1.0, 1.0), seed=1)
    result = np.asarray(layer(gray[None], training=True))[0, ..., 0]
    assert np.abs(result - expected).mean() < 0.6
    assert np.abs(gray[..., 0] - expected).mean() > 2


@pytest.mark.parametrize(("height", "width"), [(20, 16), (13, 23), (9, 12)])
def test_images_need_not_consist_of_whole_blocks(height, width):
    """What whole blocks cover is as without the rest, which stays close to the image."""
    layer, part = RandomBlocks(1.0, coarseness=(1.0, 1.0)), BATCH[:, :height, :width]
    result = np.asarray(layer(part, training=True))
    assert result.shape == part.shape and np.abs(result - part).mean() < 6
    rows, columns = height // 8 * 8, width // 8 * 8
    whole = layer(part[:, :rows, :columns], training=True)
    np.testing.assert_allclose(result[:, :rows, :columns], whole, atol=1e-3)


@pytest.mark.integration
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_colors_are_changed_in_float32_in_graphs_too(policy):
    """Keras's blur does not run in a graph of half precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        network = keras.Sequential([keras.Input(FACE.shape), *photometric()])
    finally:
        keras.config.set_dtype_policy(before)
    assert {layer.compute_dtype for layer in network.layers} == {"float32"}
    changed = tf.function(lambda images: network(images, training=True))(BATCH)
    plain = keras.Sequential([keras.Input(FACE.shape), *photometric()])
    expected = tf.function(lambda images: plain(images, training=True))(BATCH)
    np.testing.assert_allclose(changed, expected, atol=0.1)


def test_moving_photos_is_not_compiled_by_xla_on_tensorflow():
    """Keras compiles on a GPU where all layers allow it; XLA lacks the image transform."""
    assert not RandomMove().supports_jit


def test_the_quantization_steps_are_those_of_libjpeg_at_quality_50():
    file = io.BytesIO()
    PIL.Image.new("L", (8, 8)).save(file, "JPEG", quality=50)
    table = PIL.Image.open(file).quantization[0]
    np.testing.assert_array_equal(LUMINANCE_STEPS, np.reshape(table, (8, 8)))
