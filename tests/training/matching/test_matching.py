"""The mode 'matching', on the CPU: small networks and a small random recognizer."""

import csv
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from dlib_files import write_recognizer
from xla_flags import FAST

from keras_scnn.data.records import FaceRecords, save_records
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.run import check_mode_backend, open_data

pytest.importorskip("jax")

from keras_scnn.training.matching.mode import packed_photos  # noqa: E402

pytestmark = pytest.mark.timeout(900)  # the first compiles three programs
SCRIPT = Path(__file__).with_name("two_steps.py")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of four steps, and the same interrupted after two and resumed."""
    folder = tmp_path_factory.mktemp("matching")
    write_recognizer(folder / "recognizer.dat")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": FAST}
    # The three calls of train compile the same programs: each is compiled once.
    environment["JAX_COMPILATION_CACHE_DIR"] = str(folder / "programs")
    command = [sys.executable, str(SCRIPT), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.integration
def test_a_resumed_run_is_the_run_that_was_not_interrupted(runs):
    whole, resumed = (
        np.load(runs / name / "weights.npz", allow_pickle=False) for name in ("whole", "resumed")
    )
    assert whole.files == resumed.files
    for name in whole.files:
        np.testing.assert_array_equal(whole[name], resumed[name], err_msg=name)


@pytest.mark.integration
def test_it_leaves_state_curves_and_a_preset(runs):
    state = json.loads((runs / "resumed" / "state.json").read_text())
    assert (state["step"], state["done"]) == (4, True)
    with (runs / "resumed" / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4"]
    for name in ("parameters", "landmarks", "shape", "features", "embedding", "feature_likeness"):
        assert all(float(row[f"{name}_loss"]) > 0 for row in rows), name
    assert all(np.isfinite(float(row["shape_size"])) for row in rows)
    metadata = json.loads((runs / "whole" / "preset.json").read_text())["metadata"]
    assert metadata["config"]["batches"] == "matching" and metadata["digests"]["start"] == ""


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="it is for other backends")
def test_another_backend_is_refused_before_anything_is_rendered():
    with pytest.raises(ValueError, match=r"needs JAX as Keras's backend.*\.\[matching\]"):
        check_mode_backend(TrainConfig(batches="matching"))


@pytest.mark.parametrize(
    "change",
    [{"yaw": 30.0}, {"portraits": True}, {"spread": 0.5}, {"pitch": 3.0}, {"seed": 1}],
    ids=lambda change: next(iter(change)),
)
def test_other_synthetic_people_have_another_pack_in_the_cache(tmp_path, change):
    config = TrainConfig(batches="matching", cache=str(tmp_path))
    path = packed_photos(config)
    assert path.parent == tmp_path and path == packed_photos(dataclasses.replace(config))
    assert packed_photos(dataclasses.replace(config, **change)) != path


def test_records_made_again_have_another_pack_in_the_cache(tmp_path):
    images, landmarks = np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 68, 3), np.float32)
    records = FaceRecords(images, np.zeros((2, 144), np.float32), landmarks, np.arange(2), "face")
    config = TrainConfig(batches="matching", cache=str(tmp_path), data=str(tmp_path / "records"))
    paths = []
    for one in (records, records, dataclasses.replace(records, images=images + 1)):
        save_records(config.data, one)
        paths.append(packed_photos(config))
    assert paths[0] == paths[1] != paths[2]
    assert packed_photos(dataclasses.replace(config, photo_folders="photos")) != paths[2]


def test_another_face_model_in_the_same_file_has_another_pack(tmp_path, tiny_face_model):
    file = tmp_path / "face.npz"
    config = TrainConfig(batches="matching", cache=str(tmp_path), face_model=str(file))
    paths = []
    for basis in (tiny_face_model.identity_basis, 2 * tiny_face_model.identity_basis):
        tiny_face_model.replace(identity_basis=basis).save(file)
        paths.append(packed_photos(config))
    assert paths[0] != paths[1]


@pytest.mark.parametrize("is_rendered", [True, False])
def test_too_few_people_are_reported_before_photos_are_rendered_or_packed(
    tmp_path, is_rendered, monkeypatch
):
    """The error came after all photos were packed, and embedded by the recognizer."""
    images, landmarks = np.zeros((90, 32, 32, 3), np.uint8), np.zeros((90, 68, 3), np.float32)
    people = np.repeat(np.arange(9), 10)
    records = FaceRecords(images, np.zeros((90, 144), np.float32), landmarks, people, "open_face")
    save_records(tmp_path / "records", records)
    data = {"people": 9, "photos": 10} if is_rendered else {"data": str(tmp_path / "records")}
    for place in ("records.cached_records", "matching.pack.write_pack"):
        monkeypatch.setattr(f"keras_scnn.training.{place}", lambda *_: pytest.fail("too late"))
    config = TrainConfig(batches="matching", cache=str(tmp_path / "cache"), held_out=2, **data)
    with pytest.raises(ValueError, match="9 people have 10 photos, .*; 10 are needed"):
        open_data(config)


def test_a_pack_given_as_data_is_read_where_it_is():
    assert packed_photos(TrainConfig(batches="matching", data="a/b.npz")) == Path("a/b.npz")
