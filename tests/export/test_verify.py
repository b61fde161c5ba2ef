import dataclasses
import json
import os

import numpy as np
import pytest

from keras_scnn.export.artifacts import _WRITERS
from keras_scnn.export.crops import Crops
from keras_scnn.export.drift import Drift, output_drift
from keras_scnn.export.exported_model import output_table
from keras_scnn.export.formats import FORMATS, file_name
from keras_scnn.export.metadata import build_metadata
from keras_scnn.export.runtimes import _RUNTIMES, median_milliseconds, open_artifact
from keras_scnn.export.verify import (
    LIMITS,
    Limits,
    VerificationError,
    broken_limits,
    verify,
    write_report,
)
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.parameters import ParameterSpace, Whitening

LOOSE = Limits(**dict.fromkeys(LIMITS["int8"].__dict__, 99))


def noisy(outputs, name, random):
    """One output with noise of 30 % of its size, or so."""
    value = outputs[name]
    noise = random.normal(size=value.shape) * 0.3 * np.abs(value).mean()
    return outputs | {name: np.float32(value + noise)}


@pytest.fixture(scope="module")
def crops(small) -> Crops:
    landmarks = small.expected["landmarks"] + 1.0
    return Crops(small.crops[:6], landmarks[:6].astype(np.float32), "six crops")


@pytest.fixture(scope="module")
def expected(small) -> dict[str, np.ndarray]:
    return small.expected


@pytest.fixture(scope="module")
def known(expected) -> dict:
    """For ``verify``: a few runs to time, and what Keras predicts from the six crops."""
    return {"repeats": 3, "expected": {name: value[:6] for name, value in expected.items()}}


def test_a_faithful_file_breaks_no_limit(small, crops):
    result = verify(small.files["float32"], small.preset, crops, repeats=3)
    assert result.broken == ()
    assert result.landmark_px < 1e-4
    assert result.bytes == small.files["float32"].stat().st_size
    assert result.milliseconds.keys() == {"1", "2"}


def test_predictions_that_are_known_are_compared_with_instead(small, crops, known):
    moved = {**known["expected"], "landmarks": known["expected"]["landmarks"] + 2.0}
    result = verify(small.files["float32"], small.preset, crops, repeats=3, expected=moved)
    assert result.landmark_px == pytest.approx(np.sqrt(8), abs=1e-3)  # moved in x and y
    assert result.vertex_mm < 1e-3


def test_a_file_of_another_network_breaks_them(small, crops):
    moved = small.preset.space.whitening.mean + np.eye(len(small.preset.space.whitening.mean))[3]
    other = dataclasses.replace(
        small.preset,
        space=ParameterSpace(
            small.preset.face_model, Whitening(moved, small.preset.space.whitening.scale)
        ),
    )
    result = verify(small.files["float32"], other, crops, repeats=3)
    # Only the translation in x differs, by one pixel.
    assert result.landmark_px == pytest.approx(1, abs=1e-3)
    assert result.landmark_p99_px == pytest.approx(1, abs=1e-3)
    assert result.vertex_mm < 1e-3
    assert len(result.broken) >= 2
    assert "landmark_px is 1, the limit is 0.01" in result.broken[0]


def test_values_that_are_no_numbers_break_the_limits(small, crops, known, monkeypatch):
    def broken(crop):
        outputs = open_artifact(small.files["float32"])(crop)
        return {name: np.full_like(value, np.nan) for name, value in outputs.items()}

    monkeypatch.setattr("keras_scnn.export.verify.open_artifact", lambda *_: broken)
    check = verify(small.files["float32"], small.preset, crops, **known)
    assert "landmark_px is nan, the limit is 0.01" in check.broken
    assert len(check.broken) == len(dataclasses.fields(Drift)) + 1  # and the landmark error


BREAKS = {
    "features of half the length": ("features", lambda x: x / 2),
    "one feature off": ("features", lambda x: x + 0.3 * np.eye(x.shape[-1])[0]),
    "scale": ("scale", lambda x: x * 1.05),
    "translation": ("translation", lambda x: x + [1.5, 0, 0]),
    "depth of the translation": ("translation", lambda x: x + [0, 0, 2]),
    "pitch": ("euler_degrees", lambda x: x + [2, 0, 0]),
    "yaw": ("euler_degrees", lambda x: x + [0, 2, 0]),
    "roll": ("euler_degrees", lambda x: x + [0, 0, 2]),
    "no rotation": ("rotation", lambda x: x * 1.1),
    "transposed rotation": ("rotation", lambda x: x.swapaxes(-1, -2)),
    "depth of the landmarks": ("landmarks", lambda x: x + [0, 0, 2]),
    "landmarks": ("landmarks", lambda x: x + [1, 0, 0]),
    "vertices": ("vertices", lambda x: x + [0, 0, 1]),
    "camera": ("parameters", lambda x: x + 2 * np.eye(x.shape[-1])[3]),
    "camera's depth row": ("parameters", lambda x: x + 2 * np.eye(x.shape[-1])[11]),
    "one identity coefficient": ("parameters", lambda x: x + 0.4 * np.eye(x.shape[-1])[17]),
    "one expression weight": ("parameters", lambda x: x + 0.4 * np.eye(x.shape[-1])[-1]),
}


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("name, change", BREAKS.values(), ids=BREAKS)
def test_each_output_that_is_wrong_is_refused(small, expected, precision, name, change):
    changed = expected | {name: change(expected[name])}
    broken = broken_limits(
        dataclasses.asdict(output_drift(changed, expected, small.preset)), LIMITS[precision]
    )
    assert broken


@pytest.mark.parametrize("precision", LIMITS)
def test_noise_in_any_output_is_refused(small, expected, precision):
    assert expected.keys() == output_table(small.preset, True).keys()
    for name in expected:
        changed = noisy(expected, name, np.random.default_rng(3))
        drift = dataclasses.asdict(output_drift(changed, expected, small.preset))
        assert broken_limits(drift, LIMITS[precision]), name


def test_exact_outputs_have_no_drift(small, expected):
    whole_turns = expected | {"euler_degrees": expected["euler_degrees"] + 360}
    for outputs in (expected, whole_turns):
        drift = dataclasses.asdict(output_drift(outputs, expected, small.preset))
        np.testing.assert_allclose(list(drift.values()), 0, atol=1e-4)


def test_drift_is_in_the_units_that_it_names(small, expected):
    def drift(**changes):
        return output_drift(expected | changes, expected, small.preset)

    half = np.sin(np.radians(3.0) / 2) * 2  # the chord of 3 degrees
    across = np.linalg.svd(expected["features"][:, None])[2][:, -1]  # at right angles to each
    turned = np.cos(np.radians(3)) * expected["features"] + np.sin(np.radians(3)) * across
    assert np.allclose(np.linalg.norm(turned - expected["features"], axis=-1), half)
    assert drift(features=turned).feature_degrees == pytest.approx(3, rel=1e-4)
    assert drift(scale=expected["scale"] * 1.02).scale_percent == pytest.approx(2)
    moved = expected["translation"] + [3, 0, 4]
    assert drift(translation=moved).translation_px == pytest.approx(5)
    turn = rotation_from_euler(np.radians([0, 0, 7.0])) @ expected["rotation"]
    assert drift(rotation=turn).rotation_degrees == pytest.approx(7)


@pytest.mark.parametrize("name", ["features", "scale", "vertices"])
def test_an_output_that_is_missing_or_of_another_shape_is_refused(small, crops, monkeypatch, name):
    whole = open_artifact(small.files["float32"])
    changes = {
        f"{name} is missing": lambda outputs: {k: v for k, v in outputs.items() if k != name},
        f"{name} has the shape .*; expected": lambda outputs: (
            outputs | {name: outputs[name][..., None]}
        ),
    }
    for words, change in changes.items():
        runner = lambda crop, change=change: change(whole(crop))  # noqa: E731
        monkeypatch.setattr("keras_scnn.export.verify.open_artifact", lambda *_, r=runner: r)
        with pytest.raises(VerificationError, match=f"float32.tflite: .*: {words}"):
            verify(small.files["float32"], small.preset, crops, repeats=3, vertices=True)


@pytest.mark.integration
def test_the_loss_of_landmark_error_is_measured_against_annotation(small, crops, known):
    result = verify(small.files["float16"], small.preset, crops, "float16", LOOSE, **known)
    # Annotated one pixel off in x and y: sqrt(2) px over the root of the box's area, by a loop.
    errors = []
    for points in crops.landmarks:
        width, height = np.ptp(points[:, :2], axis=0)
        errors.append(100 * np.sqrt(2) / np.sqrt(width * height))
    assert result.keras_nme_percent == pytest.approx(np.mean(errors), rel=1e-4)
    assert result.nme_loss_points == pytest.approx(result.nme_percent - result.keras_nme_percent)
    assert abs(result.nme_loss_points) < 0.05


def test_without_annotation_there_is_no_landmark_error(small, crops, known):
    blind = dataclasses.replace(crops, landmarks=None)
    result = verify(small.files["float32"], small.preset, blind, **known)
    assert (result.nme_percent, result.keras_nme_percent, result.nme_loss_points) == (None,) * 3
    assert result.broken == ()


def test_each_precision_has_limits_and_8_bits_meet_them():
    assert LIMITS.keys() == {"float32", "float16", "dynamic", "int8"}
    assert LIMITS["int8"].nme_loss_points <= 0.05  # the numbers
    assert LIMITS["int8"].vertex_mm <= 0.2


@pytest.mark.integration
def test_the_report_is_json_and_a_card(small, crops, known, tmp_path):
    result = verify(small.files["int8"], small.preset, crops, "int8", LOOSE, **known)
    metadata = build_metadata(small.preset, "small", "int8", True, "# The preset's own card")
    paths = write_report(tmp_path, "small.tflite", result, metadata)
    assert [p.name for p in paths] == ["small.tflite.json", "small.tflite.md"]
    report = json.loads(paths[0].read_text())
    assert report["verification"]["landmark_px"] == result.landmark_px
    assert report["metadata"] == metadata
    card = paths[1].read_text()
    for text in ("six crops", "| landmarks | (68, 3) |", "CC0", "own card", "threads: 2"):
        assert text in card


def test_a_report_on_a_broken_file_is_strict_json(small, crops, known, tmp_path):
    result = verify(small.files["float32"], small.preset, crops, **known)
    folder = os.fsdecode(b"na\xefve")  # no UTF-8
    result = dataclasses.replace(result, landmark_px=float("nan"), crops=f"6 images of {folder}")
    metadata = build_metadata(small.preset, "small")
    path, card = write_report(tmp_path, "small.tflite", result, metadata)
    assert b"6 images of na\xefve" in card.read_bytes()
    odd = []
    report = json.loads(path.read_text(), parse_constant=odd.append)
    assert odd == []
    assert report["verification"]["landmark_px"] is None


def test_each_format_has_a_writer_and_each_kind_of_file_a_runtime():
    assert _WRITERS.keys() == FORMATS.keys()
    endings = {file_name("preset", kind, "float32").removeprefix("preset") for kind in FORMATS}
    files = {"." + end.rpartition(".")[2] for end in endings if "." in end}
    assert files == _RUNTIMES.keys()  # what has no suffix is a folder: a SavedModel, a bundle


def test_foreign_files_are_named(tmp_path, small):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "folder").mkdir()
    for name, message in (("notes.txt", "not an exported file"), ("folder", "not a SavedModel")):
        with pytest.raises(ValueError, match=f"{name}: {message}"):
            open_artifact(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="gone.tflite: no such exported file"):
        open_artifact(tmp_path / "gone.tflite")


def test_the_median_time_is_that_of_the_runs(monkeypatch):
    clock = iter(np.cumsum([0, 1] + [0, 2] + [0, 9]) / 1e3)
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    assert median_milliseconds(lambda crop: {}, None, repeats=3) == pytest.approx(2)
