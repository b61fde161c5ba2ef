import numpy as np
import pytest

from keras_scnn.texturing.blending import blend_seamlessly, gamma_decode, gamma_encode

S = 128


@pytest.fixture
def left() -> np.ndarray:
    """(S, S) share: known on the left half."""
    return np.repeat(np.float32(np.arange(S) < S / 2)[None], S, axis=0)


def flat(value: float) -> np.ndarray:
    return np.full((S, S, 3), value, np.float32)


def test_known_texels_are_kept_and_the_rest_takes_their_color_at_the_border(left):
    result = blend_seamlessly(flat(0.4), flat(0.7), left, np.ones((S, S), bool))
    row = result[S // 2, :, 0]
    np.testing.assert_allclose(row[: S // 2], 0.7, atol=1e-5)
    assert np.abs(np.diff(row)).max() < 0.05  # the colors are 0.3 apart
    assert (np.diff(row) < 1e-5).all()
    assert row[-1] == pytest.approx(0.4, abs=0.01)  # far away it has faded


def test_details_of_the_plain_part_stay(left):
    bottom = flat(0.4)
    bottom[60:64, 70:74] += 0.1
    result = blend_seamlessly(bottom, flat(0.7), left, np.ones((S, S), bool))
    plain = blend_seamlessly(flat(0.4), flat(0.7), left, np.ones((S, S), bool))
    np.testing.assert_allclose((result - plain)[62, 72], 0.1, atol=0.01)


def test_a_difference_does_not_cross_a_gap(left):
    inside = np.ones((S, S), bool)
    inside[:, S // 2 : S // 2 + 6] = False
    result = blend_seamlessly(flat(0.4), flat(0.7), left, inside)
    np.testing.assert_allclose(result[:, S // 2 + 8 :], 0.4, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_or_all_is_known(share):
    result = blend_seamlessly(
        flat(0.4), flat(0.7), np.full((S, S), share, np.float32), np.ones((S, S), bool)
    )
    np.testing.assert_allclose(result, 0.7 if share else 0.4, atol=1e-5)


def test_encoded_light_is_decoded_again():
    light = np.float32([0, 0.01, 0.5, 1, 1.7])
    np.testing.assert_allclose(gamma_decode(gamma_encode(light)), light, rtol=1e-4)
    assert gamma_encode(np.float32([-1.0]))[0] == 0
