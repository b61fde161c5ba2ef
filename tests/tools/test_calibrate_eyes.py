import numpy as np
import pytest

from keras_scnn.models import load_preset
from keras_scnn.models.inference import keras_network


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_an_opening_is_the_lids_distance_over_the_eyes_width(tool):
    eye = np.array([[0, 0], [3, -2], [6, -1], [10, 0], [6, 1], [3, 2]], float)
    assert tool.opening(eye) == pytest.approx((4 + 2) / 2 / 10)
    assert tool.opening(5 * eye[:, ::-1] + 7) == pytest.approx(0.3)


def synthetic_eyes(tool, rng, wanted: np.ndarray):
    """Eyes 10 px wide that 'blink' closes and 'wide' opens; predicted units are shrunk by half."""
    n = len(wanted)
    base = np.tile([[0, 0], [3, -1.5], [7, -1.5], [10, 0], [7, 1.5], [3, 1.5]], (n, 1, 1)).astype(
        float
    )
    moves = np.zeros((n, 6, 2, 6))
    moves[:, 1:3, 1, 0] = 3.0  # the upper lid comes down to the lower one
    moves[:, 1:3, 1, 2] = -3.0
    true = (0.3 - wanted) / 0.3  # blink above 0, wide below
    blink, wide = np.maximum(true, 0), np.maximum(-true, 0)
    units = np.zeros((n, 7))
    units[:, 0] = 0.5 * blink + 0.1 + rng.normal(0, 0.01, n)
    units[:, 2] = 0.5 * wide + rng.normal(0, 0.01, n)
    units[:, 3:6], units[:, 6] = units[:, :3], 1
    return tool.Eyes(wanted, base, moves, units)


def test_units_that_were_shrunk_regain_their_size(tool, rng):
    wanted = rng.uniform(0.02, 0.5, 600)
    eyes = (synthetic_eyes(tool, rng, wanted), synthetic_eyes(tool, rng, wanted))
    before = tool.calibrated_openings(np.eye(7, 3), eyes)[0]
    after = tool.calibrated_openings(tool.fit(eyes), eyes)[0]
    assert np.abs(before - wanted).mean() > 0.06
    assert np.abs(after - wanted).mean() < 0.02
    for low, high in ((0, tool.BINS[0]), (tool.BINS[-1], 1)):
        chosen = (wanted >= low) & (wanted < high)
        assert np.mean(after[chosen] - wanted[chosen]) == pytest.approx(0, abs=0.02)


@pytest.mark.integration
@pytest.mark.parametrize("name", ["mobile", "aflw-mobilenet-0.5"])
def test_the_map_is_folded_into_the_weights_and_all_else_stays(tool, name, rng):
    preset = load_preset(name)
    crops = rng.integers(0, 255, (3, 120, 120, 3)).astype(np.uint8)
    network = keras_network(preset)
    before = preset.space.parameters(network(crops)["parameters"])
    weights = np.eye(7, 3) + rng.normal(0, 0.3, (7, 3))
    tool.fold(preset, weights)
    after = preset.space.parameters(keras_network(preset)(crops)["parameters"])
    expected = before.expression.astype(np.float64)
    for units in tool.eye_units(preset.face_model):
        expected[:, units[:3]] = np.c_[before.expression[:, units], np.ones(3)] @ weights
    np.testing.assert_allclose(after.expression, expected, atol=2e-4)
    np.testing.assert_allclose(after.identity, before.identity, atol=1e-5)
    np.testing.assert_allclose(after.pose, before.pose, atol=1e-4)


def test_a_face_model_without_these_units_is_named(tool, tiny_face_model):
    with pytest.raises(ValueError, match="has no eyeBlinkLeft, eyeBlinkRight"):
        tool.eye_units(tiny_face_model)


@pytest.mark.integration
def test_the_command_learns_from_renderings(tool, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    words = f"calibrate_eyes open {out} --renderings 12 --seed 3"
    monkeypatch.setattr("sys.argv", words.split())
    assert tool.main() == 0
    note = load_preset(out).metadata["eyes"]
    assert note["calibrated_on"] == "12 rendered people, seed 3"
    assert 0 < note["photos"] < 120 and note["photos"] % 10 == 0  # whole people are left out
    printed = capsys.readouterr().out.splitlines()
    before, after = (float(line.split("error ")[1].split(",")[0]) for line in printed[:2])
    assert after < before < 0.08


def test_the_known_openings_are_those_of_the_renderings(tool):
    preset = load_preset("open")
    right, left = tool.rendered_eyes(preset, 2, seed=5)
    _, faces, landmarks = tool.upright_portraits(2, 5, 120)
    np.testing.assert_allclose(right.opening, tool.opening(landmarks[:, 36:42, :2]), atol=1e-6)
    blink = preset.face_model.expression_names.index("eyeBlinkLeft")
    shut = faces.expression[:, blink] > 0.9
    assert left.opening[shut].max(initial=0) < 0.15 < left.opening[~shut].max()


def test_a_seed_is_for_renderings(tool, tmp_path, refused):
    words = "--aflw", tmp_path, "--seed", "3"
    assert "--seed is for --renderings" in refused(tool, "open", tmp_path / "out", *words)


def test_renderings_need_two_people(tool, tmp_path, refused):
    assert "--renderings is 1; it must be 2 or more" in refused(
        tool, "open", tmp_path / "out", "--renderings", "1"
    )
