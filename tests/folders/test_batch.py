import dataclasses
import json
import shutil

import numpy as np
import pytest

from keras_scnn.folders.batch import BatchReconstructor, BatchSettings, reconstruct_batch
from keras_scnn.folders.folder import list_photos, reconstruct_folder
from keras_scnn.models.inference import MAX_BATCH
from keras_scnn.models.presets import FOLDER
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.storage.images import ReducedImage
from keras_scnn.storage.shards import Failures

pa = pytest.importorskip("pyarrow", reason="extra 'batch' is not installed")
pq = pytest.importorskip("pyarrow.parquet")

CROPS = BatchSettings(crops=True)


def photos_of(folder, with_bytes=True):
    names = list_photos(folder, folder / "out").photos
    if not with_bytes:
        return pa.table({"path": [str(folder / name) for name in names]})
    return pa.table({"path": names, "bytes": [(folder / name).read_bytes() for name in names]})


def faces_of(result):
    return result.filter(pa.compute.is_null(result["failed"])).drop_columns("failed")


@pytest.mark.parametrize("crops", [True, False])
def test_rows_are_bit_for_bit_those_of_the_parquet_parts(tmp_path, request, crops):
    folder = request.getfixturevalue("crop_folder" if crops else "photo_folder")
    settings = BatchSettings(crops=crops)
    done = reconstruct_folder(folder, tmp_path / "out", settings, workers=1)
    (path,) = (tmp_path / "out" / "faces").iterdir()
    part = pq.read_table(path)
    result = reconstruct_batch(photos_of(folder), settings)
    faces = faces_of(result)
    assert faces.column_names == part.column_names and len(faces) == done.faces
    assert faces.cast(part.schema).equals(part)
    reasons = json.loads(part.schema.metadata[b"keras_scnn.failures"])
    failed = result.filter(pa.compute.is_valid(result["failed"]))
    assert [list(row.values()) for row in failed.select(["photo", "failed"]).to_pylist()] == reasons
    about, of_part = (json.loads(s.schema.metadata[b"keras_scnn"]) for s in (result, part))
    assert all(of_part[key] == value for key, value in about.items())


def test_photos_are_read_by_their_paths_too(crop_folder):
    by_bytes, by_path = (reconstruct_batch(photos_of(crop_folder, b), CROPS) for b in (True, False))
    assert by_path.drop_columns("photo").equals(by_bytes.drop_columns("photo"))
    assert by_path["photo"].to_pylist() == [
        str(crop_folder / name) for name in by_bytes["photo"].to_pylist()
    ]


def test_a_photo_that_is_read_reduced_is_marked(crop_folder, monkeypatch):
    whole = reconstruct_batch(photos_of(crop_folder), CROPS)
    assert set(whole["photo_reduced_by"].to_pylist()) == {1, None}  # null beside a failure
    for name in ("MAX_WHOLE_PIXELS", "MAX_PIXELS"):
        monkeypatch.setattr(f"keras_scnn.storage.images.{name}", 120 * 120)
    rows = reconstruct_batch(photos_of(crop_folder), CROPS).to_pylist()
    (row,) = [row for row in rows if row["photo"] == "10.png"]  # of 200 x 200 px
    assert (row["photo_reduced_by"], row["width"], row["height"]) == (2, 100, 100)


def test_one_bad_photo_is_one_row_and_the_order_stays(crop_folder):
    good = (crop_folder / "00.png").read_bytes()
    table = pa.table({"path": ["b", "a", "b", "c"], "bytes": [good, b"no photo", None, good]})
    result = reconstruct_batch(table, CROPS)
    assert result["photo"].to_pylist() == ["b", "a", "b", "c"]
    reasons = result["failed"].to_pylist()
    assert [reason is None for reason in reasons] == [True, False, False, True]
    assert "readable image" in reasons[1]
    assert reasons[2] == "'bytes' is null or empty in its row; give the content of its file"
    assert result["identity"].to_pylist()[1] is None and result["identity"].null_count == 2


def test_a_path_that_is_not_there_is_one_row(tmp_path, crop_folder):
    paths = [str(tmp_path / "gone.jpg"), str(crop_folder / "00.png")]
    result = reconstruct_batch(pa.table({"path": paths}), CROPS)
    assert result["failed"].to_pylist() == ["no such photo", None]


def test_a_preset_that_takes_anothers_place_is_used(tmp_path, crop_folder):
    table, home = photos_of(crop_folder), tmp_path / "preset"
    results = []
    for name in ("mobile", "open"):
        shutil.copytree(FOLDER / name, home, dirs_exist_ok=True)
        results.append(reconstruct_batch(table, BatchSettings(str(home), crops=True)))
    known = BatchSettings("open", crops=True)
    assert results[1]["identity"].equals(reconstruct_batch(table, known)["identity"])
    assert not results[0]["identity"].equals(results[1]["identity"])


def test_photos_that_fail_together_are_tried_one_by_one(crop_folder, monkeypatch):
    whole = Reconstructor.reconstruct_many

    def broken(self, images, boxes, passes):
        if any(image.shape[0] == 200 for image in images):
            raise FloatingPointError("this face")
        return whole(self, images, boxes, passes)

    monkeypatch.setattr(Reconstructor, "reconstruct_many", broken)
    result = reconstruct_batch(photos_of(crop_folder), CROPS)
    failed = dict(zip(result["photo"].to_pylist(), result["failed"].to_pylist(), strict=True))
    assert failed.pop("10.png") == "this face"
    assert sum(reason is None for reason in failed.values()) == 10


def test_small_photos_are_grouped_into_whole_batches():
    photo, count = ReducedImage(np.zeros((4, 4, 3), np.uint8), 1), 20 * MAX_BATCH + 1
    photos = [(str(i), lambda: photo) for i in range(count)]
    groups = list(BatchReconstructor(CROPS)._groups(photos, Failures()))
    assert [face.row for group in groups for face in group] == list(range(count))
    sizes = [len(group) for group in groups]
    assert all(size % MAX_BATCH == 0 for size in sizes[:-1]) and max(sizes) <= 10 * MAX_BATCH


def test_no_photo_gives_the_same_columns(crop_folder):
    table = photos_of(crop_folder)
    result, full = reconstruct_batch(table[:0], CROPS), reconstruct_batch(table[:1], CROPS)
    assert result.num_rows == 0 and result.schema.equals(full.schema, check_metadata=True)
    only_failed = reconstruct_batch(pa.table({"path": ["nowhere"]}), CROPS)
    assert only_failed.schema.equals(full.schema, check_metadata=True)


@pytest.mark.parametrize(
    ("table", "settings", "message"),
    [
        ({"name": ["a"]}, CROPS, "'path' is needed"),
        ({"path": [1]}, CROPS, "column 'path' is int64; it must be text"),
        ({"path": ["a"], "bytes": ["a"]}, CROPS, "column 'bytes' is string; it must be binary"),
        ({"path": ["a", None]}, CROPS, "1 photos have no 'path'"),
        ({"path": ["a"]}, dataclasses.replace(CROPS, meshes="obj"), "holds no meshes"),
    ],
)
def test_a_wrong_table_is_refused(table, settings, message):
    with pytest.raises(ValueError, match=message):
        reconstruct_batch(pa.table(table), settings)


def test_an_unknown_preset_is_no_photos_failure():
    with pytest.raises(FileNotFoundError, match="nonsense"):
        reconstruct_batch(pa.table({"path": ["a"]}), BatchSettings(preset="nonsense"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shard_photos": 0}, "shard_photos is 0; it must be 1 or more"),
        ({"shard_photos": -3}, "shard_photos is -3; it must be 1 or more"),
        ({"shard_photos": 2.5}, "shard_photos is 2.5; it must be a whole number"),
        ({"meshes": "stl"}, "meshes is 'stl'; it must be one of obj, ply, glb"),
        ({"meshes": ".obj"}, "meshes is '.obj'; it must be one of obj, ply, glb"),
        ({"meshes": "OBJ"}, "meshes is 'OBJ'; it must be one of obj, ply, glb"),
        ({"meshes": True}, "meshes is True; it must be one of obj, ply, glb"),
        ({"meshes": ""}, "meshes is ''; it must be one of obj, ply, glb"),
    ],
)
def test_settings_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        BatchSettings(**values)


def test_numbers_of_numpy_are_settings_that_fit_json():
    settings = BatchSettings(shard_photos=np.int64(4))
    assert json.loads(json.dumps(dataclasses.asdict(settings)))["shard_photos"] == 4


def test_vectors_have_the_size_of_the_preset(crop_folder):
    result = reconstruct_batch(photos_of(crop_folder)[:2], CROPS)
    landmarks = np.array(result["landmarks"].to_pylist())
    assert landmarks.shape == (2, 204) and np.isfinite(landmarks).all()


def test_a_preset_may_be_a_path():
    """Settings are noted in the results as JSON."""
    settings = BatchSettings(preset=FOLDER / "mobile")
    assert settings == BatchSettings(preset=str(FOLDER / "mobile"))
    assert json.dumps(dataclasses.asdict(settings))
