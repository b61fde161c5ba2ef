import dataclasses
import shutil

import cv2
import keras
import numpy as np
import pytest

from keras_scnn.io import read_image
from keras_scnn.protocols.photo_predictions import PhotoPredictor
from keras_scnn.storage.shards import file_digest


@pytest.fixture
def paths(people):
    return sorted(people.rglob("*.png"))[:6]


def test_predictions_are_those_of_the_reconstructor(predictor, paths):
    result = predictor(paths)
    image = cv2.cvtColor(cv2.imread(str(paths[3])), cv2.COLOR_BGR2RGB)
    face = predictor.reconstructor.reconstruct_boxes(image, [predictor.find_face(image)])[0]
    np.testing.assert_allclose(result.parameters.identity[3], face.parameters.identity, atol=1e-4)
    np.testing.assert_allclose(result.landmarks[3], face.landmarks, atol=1e-3)
    np.testing.assert_allclose(result.features[3], face.features, atol=1e-5)
    assert result.yaw_degrees[3] == pytest.approx(face.euler_degrees[1], abs=1e-3)
    assert len(result.kept) == len(paths)


def test_no_more_photos_wait_for_the_network_than_are_allowed(predictor, paths, monkeypatch):
    whole = predictor(paths)
    sizes = [read_image(path).size // 3 for path in paths]
    assert len(set(sizes)) == 1
    monkeypatch.setattr("keras_scnn.protocols.photo_predictions.GROUP_PIXELS", 2 * sizes[0])
    groups, many = [], predictor.reconstructor.reconstruct_many

    def counted(images, boxes, *more):
        groups.append(len(images))
        return many(images, boxes, *more)

    monkeypatch.setattr(
        type(predictor.reconstructor), "reconstruct_many", lambda _, *a: counted(*a)
    )
    parts = dataclasses.replace(predictor, _known={}, cache=None)(paths)
    assert groups == [2, 2, 2]
    np.testing.assert_allclose(parts.parameters.pose, whole.parameters.pose, atol=1e-4)


def test_a_photo_without_a_face_or_that_cannot_be_read_is_left_out(predictor, paths):
    cv2.imwrite(str(paths[1]), np.zeros((48, 48, 3), np.uint8))
    paths[4].write_text("no photo")
    result = predictor(paths)
    assert result.kept.tolist() == [0, 2, 3, 5]
    assert result.position.tolist() == [0, -1, 1, 2, -1, 3]
    assert [str(paths[1]) in result.left_out[0], str(paths[4]) in result.left_out[1]] == [True] * 2
    with pytest.raises(ValueError, match="none of 1 photo can be measured; .*no face found"):
        predictor([paths[1]])
    with pytest.raises(FileNotFoundError, match=r"no.png: no such photo"):
        predictor([paths[0].with_name("no.png")])


def test_a_second_run_reuses_the_predictions_of_the_first(predictor, paths, tmp_path):
    cv2.imwrite(str(paths[1]), np.zeros((48, 48, 3), np.uint8))
    first = predictor(paths)

    def never(image):
        raise AssertionError("the photo was looked at again")

    again = dataclasses.replace(predictor, find_face=never, _known={})
    moved = [tmp_path / f"moved{i}.png" for i in range(len(paths))]
    for path, copy in zip(paths, moved, strict=True):
        shutil.copy(path, copy)
    second = again(moved)
    np.testing.assert_array_equal(second.parameters.pose, first.parameters.pose)
    np.testing.assert_array_equal(second.features, first.features)
    assert second.kept.tolist() == first.kept.tolist()
    assert "moved1.png" in second.left_out[0]


def test_an_interrupted_measurement_keeps_its_predictions(predictor, paths, monkeypatch):
    monkeypatch.setattr("keras_scnn.protocols.photo_predictions.BATCH", 2)
    look, seen = predictor.find_face, []

    def until_the_fifth(image):
        seen.append(1)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return look(image)

    predictor.find_face = until_the_fifth
    with pytest.raises(KeyboardInterrupt):
        predictor(paths)
    again = dataclasses.replace(predictor, find_face=until_the_fifth, _known={})
    again(paths)
    assert len(seen) == 5 + 2  # the two photos of the interrupted batch


def test_a_photo_that_cannot_be_opened_does_not_stop_the_others(predictor, paths, monkeypatch):
    def locked(path):
        if path == paths[2]:
            raise PermissionError(13, "Permission denied", str(path))
        return file_digest(path)

    monkeypatch.setattr("keras_scnn.protocols.photo_predictions.file_digest", locked)
    result = predictor(paths)
    assert result.left_out == (f"{paths[2]}: cannot be opened (Permission denied)",)
    assert result.kept.tolist() == [0, 1, 3, 4, 5]


def test_the_reason_is_kept_with_the_photo(predictor, paths):
    paths[4].write_text("no photo")
    reason = predictor(paths).left_out
    assert "not a readable image" in reason[0]
    assert dataclasses.replace(predictor, _known={})(paths).left_out == reason


def test_a_failure_without_a_text_is_no_face_of_the_next_run_either(predictor, paths):
    """An empty text in the file stands for a face; its parameters were zeros."""
    find_face, seen = predictor.find_face, []

    def blind_once(image):
        seen.append(1)
        if len(seen) == 1:
            raise ValueError
        return find_face(image)

    predictor.find_face = blind_once
    outputs = predictor(paths)
    again = dataclasses.replace(predictor, _known={})(paths)
    assert outputs.left_out == again.left_out == (f"{paths[0]}: ValueError",)
    np.testing.assert_array_equal(again.kept, outputs.kept)


def test_a_prediction_that_is_not_finite_is_left_out(predictor, paths):
    """NaN was compared in silence, or counted as a photo without a face."""
    layer = predictor.preset.branch.get_layer("parameters")
    kernel = keras.ops.convert_to_numpy(layer.kernel).copy()
    kernel[0, 14] = np.nan
    layer.kernel.assign(kernel)
    message = r"none of \d+ photos can be measured; the first: .*: the network's numbers .* not"
    with pytest.raises(ValueError, match=message):
        predictor(paths)


def test_predictions_of_other_weights_are_not_reused(predictor, paths):
    predictor(paths)
    seen = []

    def look(image):
        seen.append(1)
        return predictor.find_face(image)

    other = PhotoPredictor(predictor.reconstructor, "1" * 64, predictor.cache, look)
    other(paths)
    assert len(seen) == len(paths)


def test_photos_that_were_measured_in_another_way_are_measured_again(tmp_path, monkeypatch):
    now = PhotoPredictor.from_preset("mobile", tmp_path)
    monkeypatch.setattr("keras_scnn.reconstruction.reconstructor.PROCEDURE", "one pass")
    before = PhotoPredictor.from_preset("mobile", tmp_path)
    assert before.cache != now.cache and before.digest != now.digest


def test_the_folder_is_made_with_the_first_predictions(predictor, paths, tmp_path):
    folder = tmp_path / "new"
    assert PhotoPredictor.from_preset("mobile", folder).cache.parent == folder
    assert not folder.exists()
    dataclasses.replace(predictor, cache=folder / "predictions.npz", _known={})(paths)
    assert [path.name for path in folder.iterdir()] == ["predictions.npz"]


def test_a_damaged_file_of_predictions_is_named(predictor, paths):
    predictor(paths)
    half = predictor.cache.read_bytes()[: predictor.cache.stat().st_size // 2]
    for content in (b"nothing", half):
        predictor.cache.write_bytes(content)
        message = r"predictions.npz: not a readable .npz file.*; delete it to measure anew"
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(predictor, _known={})


def lacking(error: Exception, cause: Exception | None = None) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        lacking(ValueError("a HEIC photo; it needs pillow-heif"), ImportError("no pillow_heif")),
        PermissionError(13, "Permission denied"),
        OSError(5, "Input/output error"),
        lacking(ValueError("not a readable image"), MemoryError()),
    ],
    ids=["package", "rights", "disk", "memory"],
)
def test_failures_for_something_missing_on_this_machine_are_tried_again(
    predictor, paths, monkeypatch, error
):
    place = "keras_scnn.protocols.photo_predictions.read_image"
    look = predictor.reconstructor  # the same weights

    def lacks(path):
        if path == paths[2]:
            raise error
        return read_image(path)

    with monkeypatch.context() as patch:
        patch.setattr(place, lacks)
        first = predictor(paths)
        assert predictor(paths).left_out == first.left_out
    assert first.kept.tolist() == [0, 1, 3, 4, 5] and str(paths[2]) in first.left_out[0]
    again = PhotoPredictor(look, predictor.digest, predictor.cache, predictor.find_face)
    for one in (predictor, again):
        assert one(paths).kept.tolist() == list(range(6))
