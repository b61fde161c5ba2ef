import dataclasses
import json

import numpy as np
import pytest

from keras_scnn.export.artefacts import _WRITERS
from keras_scnn.export.crops import Crops
from keras_scnn.export.formats import FORMATS, file_name
from keras_scnn.export.metadata import build_metadata
from keras_scnn.export.runtimes import _RUNTIMES, median_milliseconds, open_artefact
from keras_scnn.export.verify import LIMITS, Limits, reference_outputs, verify, write_report
from keras_scnn.parameters import ParameterSpace, Whitening

LOOSE = Limits(9, 99, 9, 99, 99, 9)


@pytest.fixture(scope="module")
def crops(small) -> Crops:
    landmarks = reference_outputs(small.preset, small.crops)["landmarks"] + 1.0
    return Crops(small.crops[:6], landmarks[:6].astype(np.float32), "six crops")


def test_a_faithful_file_breaks_no_limit(small, crops):
    result = verify(small.files["float32"], small.preset, crops, repeats=3)
    assert result.broken == ()
    assert result.landmark_px < 1e-4
    assert result.bytes == small.files["float32"].stat().st_size
    assert result.milliseconds.keys() == {"1", "2"}


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


def test_values_that_are_no_numbers_break_the_limits(small, crops, monkeypatch):
    def broken(crop):
        outputs = open_artefact(small.files["float32"])(crop)
        return {name: np.full_like(value, np.nan) for name, value in outputs.items()}

    monkeypatch.setattr("keras_scnn.export.verify.open_artefact", lambda *_: broken)
    result = verify(small.files["float32"], small.preset, crops, repeats=3)
    assert "landmark_px is nan, the limit is 0.01" in result.broken
    assert len(result.broken) == 6


def test_the_loss_of_landmark_error_is_measured_against_annotation(small, crops):
    result = verify(small.files["float16"], small.preset, crops, "float16", LOOSE, repeats=3)
    # Annotated one pixel off in x and y: sqrt(2) px over the root of the box's area, by a loop.
    errors = []
    for points in crops.landmarks:
        width, height = np.ptp(points[:, :2], axis=0)
        errors.append(100 * np.sqrt(2) / np.sqrt(width * height))
    assert result.keras_nme_percent == pytest.approx(np.mean(errors), rel=1e-4)
    assert result.nme_loss_points == pytest.approx(result.nme_percent - result.keras_nme_percent)
    assert abs(result.nme_loss_points) < 0.05


def test_without_annotation_there_is_no_landmark_error(small, crops):
    blind = dataclasses.replace(crops, landmarks=None)
    result = verify(small.files["float32"], small.preset, blind, repeats=3)
    assert (result.nme_percent, result.keras_nme_percent, result.nme_loss_points) == (None,) * 3
    assert result.broken == ()


def test_each_precision_has_limits_and_8_bits_keep_the_promise():
    assert LIMITS.keys() == {"float32", "float16", "dynamic", "int8"}
    assert LIMITS["int8"].nme_loss_points <= 0.05  # the numbers
    assert LIMITS["int8"].vertex_mm <= 0.2


def test_the_report_is_json_and_a_card(small, crops, tmp_path):
    result = verify(small.files["int8"], small.preset, crops, "int8", LOOSE, repeats=3)
    metadata = build_metadata(small.preset, "small", "int8", True, "# The preset's own card")
    paths = write_report(tmp_path, "small.tflite", result, metadata)
    assert [p.name for p in paths] == ["small.tflite.json", "small.tflite.md"]
    report = json.loads(paths[0].read_text())
    assert report["verification"]["landmark_px"] == result.landmark_px
    assert report["metadata"] == metadata
    card = paths[1].read_text()
    for text in ("six crops", "| landmarks | (68, 3) |", "CC0", "own card", "threads: 2"):
        assert text in card


def test_each_format_has_a_writer_and_each_kind_of_file_a_runtime():
    assert _WRITERS.keys() == FORMATS.keys()
    endings = {file_name("preset", kind, "float32").removeprefix("preset") for kind in FORMATS}
    files = {"." + end.rpartition(".")[2] for end in endings if "." in end}
    assert files == _RUNTIMES.keys()  # what has no suffix is a folder, a SavedModel


def test_files_that_are_none_of_ours_are_named(tmp_path, small):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "folder").mkdir()
    for name, message in (("notes.txt", "not an exported file"), ("folder", "no SavedModel")):
        with pytest.raises(ValueError, match=f"{name}: {message}"):
            open_artefact(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="gone.tflite: no such exported file"):
        open_artefact(tmp_path / "gone.tflite")


def test_the_median_time_is_that_of_the_runs(monkeypatch):
    clock = iter(np.cumsum([0, 1] + [0, 2] + [0, 9]) / 1e3)
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    assert median_milliseconds(lambda crop: {}, None, repeats=3) == pytest.approx(2)
