import dataclasses
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from random_faces import Faces

from keras_scnn.data import preparation
from keras_scnn.data.labels import recognizer
from keras_scnn.data.labels.fit import Labeling
from keras_scnn.data.labels.landmarker import LANDMARK_PRESET
from keras_scnn.data.photo_source import LabeledPhoto, PhotoSource
from keras_scnn.data.preparation import plan_shards, prepare
from keras_scnn.data.records import is_records, load_records
from keras_scnn.data.sources.cfp import CfpPhotos
from keras_scnn.data.sources.people import PeopleFolder
from keras_scnn.geometry.camera import project, transform_camera
from keras_scnn.io import write_image
from keras_scnn.models.presets import FOLDER
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters

PHOTOS = 12


class DrawnFaces(PhotoSource):
    """Photos of dots: three of each person, p0 to p3; p1 is the mirror image of p0.

    There is no photo of p2's mirror image, p9. The last photo's file is damaged, and p3's first
    one has landmarks that are not a face's.
    """

    labels = (".mat", ".pts", ".json", "labels.npz")

    def __init__(self, folder: Path, flat: bool = False, slow: float = 0.0):
        self.folder, self.flat, self.slow = folder, flat, slow
        self.faces = Faces(MorphableModel.open_face(), PHOTOS, seed=5)
        self.landmarks = self.faces.landmarks * 2 + 100

    def names(self) -> list[str]:
        return [f"p{i // 3}/{i}.png" for i in range(PHOTOS)]

    def person(self, name: str) -> str:
        return name.split("/")[0]

    def mirror_of(self, person: str) -> str | None:
        return {"p0": "p1", "p1": "p0", "p2": "p9"}.get(person)

    def draw(self) -> None:
        for i, name in enumerate(self.names()):
            image = np.zeros((420, 420, 3), np.uint8)
            for x, y, _ in self.landmarks[i]:
                cv2.circle(image, (round(x), round(y)), 2, (255, 255, 255), -1)
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_image(self.folder / name, image)
        (self.folder / self.names()[-1]).write_bytes(b"no photo")

    def load(self, name: str) -> LabeledPhoto:
        time.sleep(self.slow)
        i = self.names().index(name)
        points = self.landmarks[i].copy()
        if i == 9:
            points[:, :2] = np.random.default_rng(0).uniform(100, 300, (68, 2))
        if self.flat:
            points[:, 2] = np.nan
        weight = np.ones(68)
        if i in (1, 2):  # without label, as NaN or as any number
            points[5], weight[5] = (np.nan, -1000.0)[i - 1], 0
        return LabeledPhoto(name, self.person(name), points, weight, self.folder / name)


class ReadyFaces(DrawnFaces):
    """Faces that can be loaded only after exactly one call of ``get_ready``."""

    times = 0

    def get_ready(self) -> None:
        self.times += 1

    def load(self, name: str) -> LabeledPhoto:
        if self.times != 1:
            raise ValueError(f"{name}: ready {self.times} times")
        return super().load(name)


@pytest.fixture
def source(tmp_path) -> DrawnFaces:
    made = DrawnFaces(tmp_path / "photos")
    made.draw()
    return made


@pytest.fixture
def labeling(open_face) -> Labeling:
    return Labeling(open_face, joint=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda points: points / 400, "span 0.5 px, and 68 of 68 lie within"),  # shares of the side
        (lambda points: points + [420, 0], "0 of 68 lie within the photo of 420 x 420 px"),
        (lambda points: points * [1, -1], "0 of 68 lie within"),  # y up
    ],
)
def test_labels_of_another_unit_or_photo_are_left_out(source, labeling, change, message):
    """They gave crops without a face, without an error."""
    source.landmarks[0, :, :2] = change(source.landmarks[0, :, :2])
    name = source.names()[0]
    _, records, left_out = labeling.records(source, [name])
    assert records is None
    assert re.search(message, left_out[name])


@pytest.mark.parametrize("placeholder", [0.0, -1000.0])
def test_a_placeholder_without_label_changes_no_label(source, labeling, placeholder):
    """The depth's mean included it, so all depths depended on it."""
    name, load = source.names()[1], source.load

    def records_with(value: float):
        def changed(name: str) -> LabeledPhoto:
            photo = load(name)
            photo.landmarks[5] = value
            return photo

        source.load = changed
        return labeling.records(source, [name])[1]

    expected, records = records_with(np.nan), records_with(placeholder)
    np.testing.assert_allclose(records.parameters, expected.parameters, atol=1e-4)
    np.testing.assert_allclose(records.landmarks, expected.landmarks, atol=1e-3)


@pytest.mark.parametrize("flat", [False, True])
def test_crops_carry_the_faces_labels(tmp_path, source, labeling, open_face, flat):
    source.flat = flat
    prepare(source, tmp_path / "out", labeling, {"source": "drawn"}, workers=1)
    records = load_records(tmp_path / "out")
    number = [source.names().index(name) for name in records.name]
    assert number == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]
    for i, record in zip(number, range(len(records)), strict=True):
        matrix = records.crop_from_image[record].astype(float)
        expected = source.landmarks[i, :, :2] @ matrix[:, :2].T + matrix[:, 2]
        known = records.weight[record] > 0
        result = records.landmarks[record]
        np.testing.assert_allclose(result[known, :2], expected[known], atol=0.01)
        np.testing.assert_allclose(result[:, :2], expected, atol=4)
        assert np.isfinite(result).all()
        # The drawn dots are where the labels say: brighter there than elsewhere.
        x, y = result[known, :2].round().astype(int).T
        inside = (x > 0) & (y > 0) & (x < 119) & (y < 119)
        assert records.images[record][y[inside], x[inside]].mean() > 60
        parameters = FaceParameters.from_vector(records.parameters[record], labeling._layout)
        shape = open_face.landmarks(parameters.identity, parameters.expression)
        again = project(parameters.pose, shape)[:, :2]
        assert np.linalg.norm(again - expected, axis=1).mean() < 2.5


def test_depth_is_in_pixels_of_the_crop_with_mean_0(source, labeling):
    _, records, _ = labeling.records(source, source.names()[3:6])
    depth = source.landmarks[3:6, :, 2] - source.landmarks[3:6, :, 2].mean(axis=1, keepdims=True)
    scale = records.crop_from_image[:, 0, 0]  # crops are not rotated
    assert scale.min() < 0.6
    np.testing.assert_allclose(records.landmarks[..., 2], scale[:, None] * depth, atol=1e-3)


def test_people_are_numbered_and_know_their_mirror_images(tmp_path, source, labeling):
    prepare(source, tmp_path / "out", labeling, {}, workers=1)
    records = load_records(tmp_path / "out")
    np.testing.assert_array_equal(records.identity, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3])
    np.testing.assert_array_equal(records.mirror, [1, 1, 1, 0, 0, 0, -1, -1, -1, -1])


def test_what_is_left_out_is_listed_with_its_reason(tmp_path, source, labeling):
    manifest = prepare(source, tmp_path / "out", labeling, {"source": "drawn"}, workers=1)
    assert set(manifest["left_out"]) == {"p3/9.png", "p3/11.png"}
    assert "the fitted face model misses its landmarks by" in manifest["left_out"]["p3/9.png"]
    assert "not a readable image" in manifest["left_out"]["p3/11.png"]
    assert manifest["config"]["source"] == "drawn"


def test_a_photo_with_wrong_labels_does_not_spoil_the_other_photos_of_the_person(source, open_face):
    """Their labels are those that they have without it; the shape was 8 mm off, beyond the mean."""
    names, labeling = source.names()[6:9], Labeling(open_face, joint=True)
    _, expected, _ = labeling.records(source, names[1:])
    source.landmarks[6, :, :2] = source.landmarks[6, ::-1, :2]
    _, records, left_out = labeling.records(source, names)
    assert list(left_out) == names[:1]
    np.testing.assert_array_equal(records.parameters, expected.parameters)


def test_photos_of_one_person_share_their_identity_where_asked(tmp_path, source, open_face):
    prepare(source, tmp_path / "out", Labeling(open_face, joint=True), {}, workers=1)
    records = load_records(tmp_path / "out")
    identity = records.parameters[:, Labeling(open_face)._layout.identity]
    for person in (0, 1, 2):
        mine = identity[records.identity == person]
        np.testing.assert_array_equal(mine, np.tile(mine[0], (len(mine), 1)))
    assert np.abs(identity[0] - identity[3]).max() > 0.1


def test_parameters_of_the_source_are_taken_over(tmp_path, source, labeling):
    matrix = np.array([[2.0, 0, 100], [0, 2, 100]])
    faces = source.faces
    pose = transform_camera(matrix, faces.camera)
    vectors = FaceParameters(pose, faces.identity, faces.expression).to_vector()
    load = source.load

    def outputs(name):
        i = source.names().index(name)
        given = {"parameters": vectors[i], "embedding": np.full(4, i)}
        return dataclasses.replace(load(name), **given)

    source.load, source.embedding_size = outputs, 4
    prepare(source, tmp_path / "out", labeling, {}, workers=1)
    records = load_records(tmp_path / "out")
    layout = labeling._layout
    # Number 9 is kept here: its landmarks were not looked at.
    np.testing.assert_allclose(records.parameters[:, layout.identity], faces.identity[:11], 1e-5)
    np.testing.assert_array_equal(records.embedding[:, 0], np.arange(11))
    parameters = FaceParameters.from_vector(records.parameters[4], layout)
    moved = transform_camera(records.crop_from_image[4].astype(float), pose[4])
    np.testing.assert_allclose(parameters.pose, moved, rtol=1e-3, atol=1e-3)


@pytest.mark.integration
def test_any_number_of_workers_writes_the_same(tmp_path, source, labeling, monkeypatch):
    monkeypatch.setattr(preparation, "SHARD_PHOTOS", 3)
    for workers in (1, 2):
        prepare(source, tmp_path / str(workers), labeling, {}, workers)
    files = sorted(p.name for p in (tmp_path / "1").iterdir())
    assert files == sorted(p.name for p in (tmp_path / "2").iterdir())
    assert len([name for name in files if name.endswith("images.npy")]) == 4
    for name in files:
        one, two = ((tmp_path / w / name).read_bytes() for w in "12")
        assert one == two or name.endswith(".npz"), name
    one, two = (load_records(tmp_path / w) for w in "12")
    np.testing.assert_array_equal(one.parameters, two.parameters)


KILLED = """
import sys
from pathlib import Path
import test_preparation as t
from keras_scnn.data.labels.fit import Labeling
t.preparation.SHARD_PHOTOS = 3
source = t.DrawnFaces(Path(sys.argv[1]), slow=0.4)
t.prepare(source, sys.argv[2], Labeling(t.MorphableModel.open_face(), joint=False), {}, workers=1)
"""


@pytest.mark.integration
def test_a_killed_run_continues_where_it_stopped(tmp_path, source, labeling, monkeypatch):
    here = Path(__file__).resolve()
    paths = [str(here.parent), str(here.parents[1]), str(here.parents[2])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", KILLED, str(source.folder), str(tmp_path / "out")]
    run = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "00001.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    (tmp_path / "out" / ".partial-1-00002.images.npy").write_bytes(b"half")
    assert not is_records(tmp_path / "out")
    monkeypatch.setattr(preparation, "SHARD_PHOTOS", 3)
    loaded = []
    load = source.load
    source.load = lambda name: (loaded.append(name), load(name))[1]
    manifest = prepare(source, tmp_path / "out", labeling, {}, workers=1)
    assert manifest["count"] == 10
    assert "p0/0.png" not in loaded and "p1/3.png" not in loaded and "p3/9.png" in loaded
    assert not list((tmp_path / "out").glob(".partial-*"))
    # And a finished one is not made again.
    loaded.clear()
    assert prepare(source, tmp_path / "out", labeling, {}, workers=1) == manifest
    assert not loaded


def test_a_folder_of_something_else_is_refused(tmp_path, source, labeling):
    prepare(source, tmp_path / "out", labeling, {"crop": 1}, workers=1)
    with pytest.raises(ValueError, match="other photos or settings"):
        prepare(source, tmp_path / "out", labeling, {"crop": 2}, workers=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.jpg").touch()
    with pytest.raises(ValueError, match="is not empty"):
        prepare(source, tmp_path / "full", labeling, {}, workers=1)


def test_shards_split_no_person(monkeypatch):
    names = [str(i) for i in range(20)]
    persons = [str(i % 4) for i in range(8)] + ["x"] * 9 + ["y", "0", "z"]
    monkeypatch.setattr(preparation, "SHARD_PHOTOS", 5)
    shards = plan_shards(names, persons)
    assert sorted(sum(shards, [])) == sorted(names)
    homes = [{persons[int(name)] for name in shard} for shard in shards]
    assert sum(map(len, homes)) == len(set(persons))
    assert all(len(shard) >= 5 for shard in shards[:-1])


def test_nothing_usable_is_an_error(tmp_path, source, labeling):
    def broken(name):
        raise ValueError(f"{name}: damaged")

    source.load = broken
    with pytest.raises(
        ValueError, match=r"no records to write: 12 left out; the first: p0/0\.png: damaged"
    ):
        prepare(source, tmp_path / "out", labeling, {}, workers=1)


def test_only_shards_whose_photos_changed_are_made_again(tmp_path, source, labeling, monkeypatch):
    monkeypatch.setattr(preparation, "SHARD_PHOTOS", 3)
    folder = tmp_path / "records"
    prepare(source, folder, labeling, {}, workers=1)
    before = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.images.npy")}
    first = load_records(folder)
    changed = source.folder / source.names()[4]
    content = changed.read_bytes()
    write_image(changed, np.full((420, 420, 3), 200, np.uint8))
    try:
        prepare(source, folder, labeling, {}, workers=1)
        after = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.images.npy")}
        second = load_records(folder)
    finally:
        changed.write_bytes(content)
    assert [name for name in sorted(after) if after[name] != before[name]] == [sorted(after)[1]]
    assert [i for i in range(len(first)) if (first.images[i] != second.images[i]).any()] == [4]


def test_equal_records_keep_their_manifest_whatever_the_command(tmp_path, source, labeling):
    """Runs and derived records refuse, or are made again, where a manifest's digest differs."""
    out = tmp_path / "out"
    made, path = partial(prepare, source, out, labeling, {}, 1), out / "manifest.json"
    made("first")
    before = path.read_bytes()
    made("second")
    assert path.read_bytes() == before
    os.utime(source.folder / source.names()[0], (0, 0))
    made("third")
    assert path.read_bytes() == before, "a shard was made again, with the same content"
    path.write_text("{}")
    made("fourth")
    assert path.read_bytes() == before.replace(b"first", b"fourth"), "it was damaged"


def test_only_shards_whose_labels_changed_are_made_again(tmp_path, source, labeling, monkeypatch):
    monkeypatch.setattr(preparation, "SHARD_PHOTOS", 3)
    load, loaded = source.load, set()
    source.load = lambda name: (loaded.add(name), load(name))[1]
    for changed, people in (("", "0123"), ("", ""), ("p1/3.json", "1"), ("labels.npz", "0123")):
        if changed:
            (source.folder / changed).write_text("{}")
        loaded.clear()
        prepare(source, tmp_path / "records", labeling, {}, workers=1)
        assert {name[1] for name in loaded} == set(people), changed


def test_labels_of_another_preset_are_made_again(tmp_path, source, labeling):
    """They are predictions of its network: a resumed run would mix those of two."""
    source.preset = str(tmp_path / "preset")
    shutil.copytree(FOLDER / LANDMARK_PRESET, source.preset)
    load, loaded = source.load, []
    source.load = lambda name: (loaded.append(name), load(name))[1]
    for version, photos in (("", PHOTOS), ("", 0), ("other", PHOTOS)):
        if version:
            settings = json.loads((tmp_path / "preset/preset.json").read_text())
            (tmp_path / "preset/preset.json").write_text(json.dumps(settings | {"of": version}))
        loaded.clear()
        prepare(source, tmp_path / "records", labeling, {}, workers=1)
        assert len(loaded) == photos, version


def test_sources_name_the_preset_that_predicts_their_labels(tmp_path):
    np.savez(tmp_path / "labels.npz", name=np.array(["1/a.jpg"]), landmarks68=np.ones((1, 68, 2)))
    (tmp_path / "1").mkdir()
    write_image(tmp_path / "1/a.jpg", np.zeros((9, 9, 3), np.uint8))
    assert CfpPhotos(tmp_path).preset == "accurate"
    assert PeopleFolder(tmp_path).preset == LANDMARK_PRESET


def test_a_photo_that_this_machine_could_not_read_is_tried_again(
    tmp_path, source, labeling, monkeypatch
):
    """A damaged photo is not, nor is a missing one until it exists."""
    monkeypatch.setattr(preparation, "SHARD_PHOTOS", 3)
    folder, read = tmp_path / "records", Path.read_bytes
    (source.folder / "p2" / "7.png").unlink()

    def read_bytes(self):
        if self.name == "1.png":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return read(self)

    with monkeypatch.context() as denied:
        denied.setattr(Path, "read_bytes", read_bytes)
        manifest = prepare(source, folder, labeling, {}, workers=1)
    assert set(manifest["left_out"]) == {"p0/1.png", "p2/7.png", "p3/9.png", "p3/11.png"}
    load, loaded = source.load, []
    source.load = lambda name: (loaded.append(name), load(name))[1]
    for names in (["p0/0.png", "p0/1.png", "p0/2.png"], []):
        loaded.clear()
        manifest = prepare(source, folder, labeling, {}, workers=1)
        assert loaded == names and set(manifest["left_out"]) == {
            *("p2/7.png", "p3/9.png", "p3/11.png")
        }


def test_photos_that_cannot_be_turned_are_listed(tmp_path, source, open_face, monkeypatch):
    """They had no copies, without a word; a photo that may be readable later is tried again."""
    labeling, read = Labeling(open_face, joint=False, turned=2), source.read_image

    def read_image(name: str) -> np.ndarray:
        if name == "p0/1.png":
            raise PermissionError(errno.EACCES, "Permission denied", name)
        if name == "p1/4.png":
            raise ValueError(f"{name}: most of the face lies outside of the photo")
        return read(name)

    with monkeypatch.context() as denied:
        denied.setattr(source, "read_image", read_image)
        manifest = prepare(source, tmp_path / "out", labeling, {}, workers=1)
    assert manifest["count"] == 3 * 10 - 4
    assert set(manifest["left_out"]) == {
        *("p3/9.png", "p3/11.png"),  # for which there are no records at all
        *("p0/1.png#1", "p0/1.png#2", "p1/4.png#1", "p1/4.png#2"),
    }
    assert "outside of the photo" in manifest["left_out"]["p1/4.png#2"]
    assert prepare(source, tmp_path / "out", labeling, {}, workers=1)["count"] == 3 * 10


def test_a_missing_recognizer_is_reported_before_photos_are_read(tmp_path, source, monkeypatch):
    """Every photo was read and left out, one by one."""

    def missing(name: str):
        raise ImportError(f"no {name}")

    monkeypatch.setattr(recognizer.importlib, "import_module", missing)
    monkeypatch.setattr(source, "load", lambda name: pytest.fail("a photo was loaded"))
    recognizer.shared_teacher.cache_clear()
    labeling = Labeling(MorphableModel.open_face(), joint=False, teacher=True)
    with pytest.raises(FileNotFoundError, match=r"dlib is not installed .*'\.\[teacher\]'"):
        prepare(source, tmp_path / "out", labeling, {}, workers=1)


def test_known_landmarks_must_be_finite(source, labeling):
    source.landmarks[0, 30, 0] = np.nan
    name = source.names()[0]
    _, _, left_out = labeling.records(source, [name])
    assert left_out[name] == f"{name}: a landmark with a weight above 0 is not finite"


@pytest.mark.integration
def test_data_for_all_photos_is_computed_before_the_workers_start(
    tmp_path, source, labeling, monkeypatch
):
    monkeypatch.setattr(preparation, "SHARD_PHOTOS", 3)
    ready = ReadyFaces(source.folder)
    for _ in range(2):  # the second time nothing is left to do
        assert prepare(ready, tmp_path / "out", labeling, {}, workers=2)["count"] == 10
        assert ready.times == 1


def test_labels_and_tables_beside_the_photos_count_as_inputs(source):
    inputs = {str(path.relative_to(source.folder)) for path in source.inputs(["p0/0.png"])}
    assert {"p0/0.png", "p0/0.mat", "p0/0.pts", "labels.npz"} <= inputs


def test_an_invalid_number_of_workers_is_refused(tmp_path, source, labeling):
    with pytest.raises(ValueError, match="workers is -1; it must be 1 or more"):
        prepare(source, tmp_path / "out", labeling, {}, workers=-1)
    assert not (tmp_path / "out").exists()
