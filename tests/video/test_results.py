import numpy as np

from keras_scnn.folders.table import read_columns
from keras_scnn.geometry.camera import compose
from keras_scnn.meshes.face import FaceLook
from keras_scnn.meshes.options import MeshOptions
from keras_scnn.video.clip import Clip
from keras_scnn.video.results import write_face_files, write_tracks
from keras_scnn.video.tracks import Track


def track(model, frames: list[int]) -> Track:
    count, rng = len(frames), np.random.default_rng(0)
    pose = compose(np.eye(3), 1.0, np.array([50.0, 40, 0]))
    return Track(
        model,
        identity=rng.normal(0, 1, model.n_identity),
        frames=np.array(frames),
        seconds=np.array(frames) / 25,
        tracklets=np.zeros(count, np.int64),
        pose=np.stack([pose] * count),
        expression=rng.uniform(0, 1, (count, model.n_expression)),
        boxes=np.tile([10.0, 10, 90, 90], (count, 1)),
        scores=np.full(count, 0.9),
        seen=np.arange(count) % 2 == 0,
    )


def test_the_table_is_in_the_order_of_frames_and_of_tracks(tmp_path, tiny_face_model, monkeypatch):
    monkeypatch.setattr("keras_scnn.video.results.GROUP_FRAMES", 3)  # written in several stretches
    tracks = [track(tiny_face_model, [0, 1, 2, 3, 9]), track(tiny_face_model, [2, 3, 4])]
    write_tracks(tmp_path / "faces.parquet", tracks, {})
    table = read_columns(tmp_path / "faces.parquet")
    assert table["frame"].tolist() == [0, 1, 2, 2, 3, 3, 4, 9]
    assert table["track"].tolist() == [0, 0, 0, 1, 0, 1, 1, 0]
    assert table["seen"].tolist() == [True, False, True, True, False, False, True, True]
    assert np.isnan(table["score"]).tolist() == (~table["seen"]).tolist()
    np.testing.assert_allclose(table["seconds"], table["frame"] / 25)
    np.testing.assert_allclose(table["expression"][3], tracks[1].expression[0], rtol=1e-6)
    part = read_columns(tmp_path / "faces.parquet", ("frame", 2, 4))
    assert part["frame"].tolist() == [2, 2, 3, 3]


def test_a_face_model_without_arkits_expressions_gives_no_csv(tmp_path, tiny_face_model):
    clip = Clip(tmp_path / "a.mp4", np.arange(3), 1, 25, (100, 80))
    own = track(tiny_face_model, [0, 1, 2])
    files = write_face_files(tmp_path / "face_0", own, clip, FaceLook(), MeshOptions())
    assert [file.name for file in files] == ["face_0.glb"] and files[0].is_file()
