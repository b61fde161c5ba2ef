"""The command on whole clips, with the product's own detector and network."""

import csv
import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from clip_files import turn, write_clip
from skimage import data

pytest.importorskip("pyarrow", reason="extra 'video' is not installed")

from keras_scnn.data.synthesis.appearance import FacePainter, random_light
from keras_scnn.folders.table import read_columns
from keras_scnn.geometry.camera import compose, project
from keras_scnn.geometry.shading import render
from keras_scnn.meshes.options import MeshOptions
from keras_scnn.models.presets import read_preset
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.reconstruct import main
from keras_scnn.storage.outputs import Results
from keras_scnn.video.clip import open_clip
from keras_scnn.video.frames import ClipSettings, FramesJob
from keras_scnn.video.run import reconstruct_clip

WIDTH, HEIGHT, FACE = 200, 160, (224, 120)  # the face's middle in the photo
FILES = {"clip.json", "faces.parquet", "overlay.mp4", "face_0.glb", "face_0.csv", "plan.json"}


def seen(x: float = 100, y: float = 80, zoom: float = 0.75, turn_degrees: float = 0.0):
    """The astronaut's photo so that her face is at a place."""
    move = cv2.getRotationMatrix2D(FACE, turn_degrees, zoom)
    move[:, 2] += np.array([x, y]) - FACE
    return cv2.warpAffine(data.astronaut(), move, (WIDTH, HEIGHT), flags=cv2.INTER_AREA)


def moving(count: int) -> list[np.ndarray]:
    return [seen(90 + 2 * i, 80 + i % 3, 0.75 + 0.005 * i) for i in range(count)]


def run(path: Path, out: Path, **settings):
    return reconstruct_clip(path, out, ClipSettings("mobile", **settings), workers=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def assert_same(one: dict[str, bytes], other: dict[str, bytes], folder: Path) -> None:
    """Equal files; the overlay's frames within a level, as encoders round what BLAS rounds."""
    assert one.keys() == other.keys()
    assert {name for name in one if one[name] != other[name]} <= {"overlay.mp4"}
    videos = [folder / "one.mp4", folder / "other.mp4"]
    for path, content in zip(videos, (one, other), strict=True):
        path.write_bytes(content["overlay.mp4"])
    frames = [np.stack([f.image for f in open_clip(path).frames()]) for path in videos]
    assert np.abs(frames[0].astype(int) - frames[1]).mean() < 1


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory) -> Path:
    seconds = [0.04 * i + 0.01 * (i % 2) for i in range(12)]  # of a variable rate
    return write_clip(tmp_path_factory.mktemp("clip") / "a.mp4", moving(12), seconds)


@pytest.fixture(scope="module")
def done(clip_file, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("video") / "out"
    result = run(clip_file, out, part_frames=5)
    assert (result.frames, result.tracks, result.failures, result.notes) == (12, 1, (), ())
    return out


def test_the_files_of_a_clip(done, clip_file):
    assert {p.name for p in done.iterdir()} == FILES | {"frames"}
    assert len(list((done / "frames").iterdir())) == 3
    content = json.loads((done / "clip.json").read_text())
    assert content["size"] == [WIDTH, HEIGHT] and content["cuts"] == []
    (track,) = content["tracks"]
    assert (track["first_frame"], track["frames"], track["frames_seen"]) == (0, 12, 12)
    times = open_clip(clip_file).seconds
    table = read_columns(done / "faces.parquet")
    assert table["frame"].tolist() == list(range(12)) and table["track"].tolist() == [0] * 12
    np.testing.assert_allclose(table["seconds"], times)
    assert (table["identity"] == table["identity"][0]).all()  # frozen: no drift at all
    nose = table["landmarks"].reshape(12, 68, 3)[:, 30, 0]
    np.testing.assert_allclose(nose - nose.mean(), 2 * np.arange(12) - 11, atol=1.5)
    rows = list(csv.DictReader((done / "face_0.csv").open()))
    frames = [float(row["Timecode"].rsplit(":", 1)[1]) for row in rows]
    rate = round(float(open_clip(clip_file).rate))  # of a variable one: codes keep the time
    np.testing.assert_allclose(frames, times * rate, atol=1e-3)
    np.testing.assert_allclose(
        [float(row["HeadYaw"]) for row in rows], -np.radians(table["yaw"]), atol=0.05
    )
    overlay = open_clip(done / "overlay.mp4")
    np.testing.assert_allclose(overlay.seconds, times, atol=1e-3)
    drawn, plain = (next(open_clip(p).frames(6)).image for p in (overlay.path, clip_file))
    changed = np.abs(drawn.astype(int) - plain).max(axis=-1) > 25
    assert changed[60:100, 85:120].mean() > 0.3 and changed[:, :20].mean() < 0.02


def test_a_clip_that_this_machine_cannot_read_gives_no_part(clip_file, monkeypatch, tmp_path):
    """Frames are noted as damaged only where they cannot be decoded: the next run tries again."""
    av = pytest.importorskip("av", reason="extra 'video' is not installed")
    job = FramesJob(open_clip(clip_file), tmp_path, ClipSettings("mobile"), {})

    def denied(*arguments, **options):
        raise av.error.PermissionError(errno.EACCES, "Permission denied", str(clip_file))

    monkeypatch.setattr(av, "open", denied)
    with pytest.raises(ValueError, match=r"a\.mp4: not a video that can be read.*denied"):
        job.make(0, [])
    assert not list(tmp_path.iterdir())


def test_complete_files_are_kept_and_missing_ones_made_again(
    done, clip_file, monkeypatch, tmp_path
):
    before = contents(done)
    monkeypatch.setattr(FramesJob, "make", lambda *_: pytest.fail("looked again"))
    assert run(clip_file, done, part_frames=5).tracks == 1
    (done / "face_0.csv").unlink()
    run(clip_file, done, part_frames=5)
    assert_same(contents(done), before, tmp_path)


@pytest.mark.integration
def test_a_stopped_run_continues_and_gives_the_same_files(done, clip_file, tmp_path, monkeypatch):
    make, calls = FramesJob.make, []

    def stopped(job, number, names):
        calls.append(number)
        if number == 1 and len(calls) == 2:
            raise KeyboardInterrupt
        return make(job, number, names)

    monkeypatch.setattr(FramesJob, "make", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(clip_file, tmp_path / "out", part_frames=5)
    assert [p.name for p in (tmp_path / "out" / "frames").iterdir()] == ["part-00000.parquet"]
    run(clip_file, tmp_path / "out", part_frames=5)
    assert calls == [0, 1, 1, 2]
    assert_same(contents(tmp_path / "out"), contents(done), tmp_path)


@pytest.mark.integration
def test_a_damaged_part_is_made_again(done, clip_file, capsys, tmp_path):
    before, part = contents(done), done / "frames" / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    (done / "clip.json").unlink()
    run(clip_file, done, part_frames=5)
    assert "part-00001.parquet: damaged; it is made again" in capsys.readouterr().out
    assert_same(contents(done), before, tmp_path)


def test_a_folder_with_another_clips_results_is_refused(done, tmp_path, capsys):
    other = write_clip(tmp_path / "b.mp4", moving(2))
    before = contents(done)
    assert main([str(other), "--out", str(done), "--preset", "mobile"]) == 2
    message = f"{done} holds results of other photos or settings (clip: 'a.mp4' there, 'b.mp4' now"
    assert message in capsys.readouterr().err
    assert contents(done) == before


def test_a_photos_results_in_an_unfinished_run_are_not_overwritten(clip_file, tmp_path):
    out = tmp_path / "out"
    run(clip_file, out, part_frames=5)
    for name in ("clip.json", "face_0.glb", "face_0.csv"):  # as if it had been stopped
        (out / name).unlink()
    write = lambda stem: stem.with_suffix(".glb").write_text("of a photo")  # noqa: E731
    Results(out, (tmp_path / "face.jpg",)).publish("face_0", {}, write)
    with pytest.raises(ValueError, match=r"could overwrite face_0.glb of a photo \(face_0.json\)"):
        run(clip_file, out, part_frames=5)
    assert (out / "face_0.glb").read_text() == "of a photo"
    (out / "face_0.json").rename(tmp_path / "face_0.json")
    (out / "face_0.glb").rename(tmp_path / "face_0.glb")
    assert run(clip_file, out, part_frames=5).tracks == 1


def test_a_photos_results_are_not_taken_for_the_clips_summary(clip_file, tmp_path):
    """Before: they were to be deleted, as a damaged summary."""
    out = tmp_path / "out"
    run(clip_file, out, part_frames=5)
    (out / "clip.json").unlink()  # as if it had been stopped
    Results(out, (tmp_path / "clip.jpg",)).publish(
        "clip", {}, lambda stem: stem.with_suffix(".glb").write_text("of a photo")
    )
    with pytest.raises(ValueError, match="clip.json: has the results of a photo, and the summary"):
        run(clip_file, out, part_frames=5)
    assert (out / "clip.glb").read_text() == "of a photo"


def test_results_of_another_procedure_are_not_reused(clip_file, done, monkeypatch):
    monkeypatch.setattr("keras_scnn.reconstruction.reconstructor.PROCEDURE", "one pass")
    with pytest.raises(
        ValueError, match="procedure: 'first pass mirrored; photos in sRGB' there, 'one pass' now"
    ):
        run(clip_file, done)


@pytest.mark.parametrize("count, searched", [(1, "1 frame"), (3, "3 frames")])
def test_a_clip_without_a_face_says_so(tmp_path, capsys, count, searched):
    gray = [np.full((HEIGHT, WIDTH, 3), 90, np.uint8)] * count
    path = write_clip(tmp_path / "a.mp4", gray)
    words = [str(path), "--out", str(tmp_path / "out"), "--preset", "mobile", "--workers", "1"]
    assert main(words) == 2
    assert f"a.mp4: no face found ({searched} searched)" in capsys.readouterr().err
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"plan.json", "frames"}


@pytest.mark.integration
def test_shots_are_cut_and_one_person_in_two_of_them_is_one_track(tmp_path):
    empty = cv2.resize(data.coffee(), (WIDTH, HEIGHT))
    images = [seen()] * 6 + [empty] * 9 + [seen(60, 90, 0.9)] * 6
    result = run(write_clip(tmp_path / "a.mp4", images), tmp_path / "out", part_frames=4)
    content = json.loads((tmp_path / "out" / "clip.json").read_text())
    assert content["cuts"] == [6, 15] and result.tracks == 1
    assert content["tracks"][0]["tracklets"] == 2 and content["tracks"][0]["frames"] == 12


@pytest.mark.integration
def test_a_clip_that_is_turned_and_cut_off(tmp_path, capsys):
    """The picture is stored on its side; of 40 frames about half are there."""
    rng = np.random.default_rng(0)
    sides = [np.rot90(seen(80 + i % 4)) for i in range(30)]
    noisy = [np.uint8(np.clip(s + rng.normal(0, 6, s.shape), 0, 255)) for s in sides]
    path = turn(write_clip(tmp_path / "a.mp4", noisy, faststart=True, options={"g": "5"}))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 5])
    words = [str(path), "--out", str(tmp_path / "out"), "--preset", "mobile", "--workers", "1"]
    assert main(words) == 1
    captured = capsys.readouterr()
    assert "cut off: 0." in captured.err and "of its length are missing" in captured.err
    assert "1 face of" in captured.out
    table = read_columns(tmp_path / "out" / "faces.parquet")
    assert open_clip(tmp_path / "out" / "overlay.mp4").size == (WIDTH, HEIGHT)
    assert np.abs(table["roll"]).max() < 15  # upright


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.mp4", b"nothing", "a.mp4: not a video that can be read, or damaged"),
        ("b.mp4", None, "b.mp4: no such file; expected a video"),
    ],
)
def test_bad_files_are_named_before_the_work(tmp_path, capsys, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main([str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_video_among_photos_is_named(tmp_path, capsys):
    assert main(["a.jpg", str(tmp_path / "a.mp4"), "--out", str(tmp_path / "out")]) == 2
    assert "a.mp4 is a video; give one video alone" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["av", "pyarrow"])
def test_a_package_that_is_missing_is_named(tmp_path, clip_file, capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.parquet", None)
    assert main([str(clip_file), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert f"{package.replace('av', 'PyAV')}, which is not installed: pip install" in error
    assert not (tmp_path / "out").exists()


def second_person() -> tuple[np.ndarray, np.ndarray]:
    """A rendered person, (110, 110, 3), and the mask."""
    model, rng = MorphableModel.open_face(), np.random.default_rng(3)
    identity = rng.standard_normal(model.n_identity).astype(np.float32)
    texture = FacePainter(model, 512).paint(rng)
    camera = compose(np.eye(3), 0.5, np.array([55.0, 60, 0]))
    posed = project(camera, model.vertices(identity))
    back = np.zeros((110, 110, 3))
    return render(posed, model.triangles, model.uv, texture, random_light(rng), back)


@pytest.mark.integration
def test_two_people_who_cross_keep_their_tracks(tmp_path):
    face, mask = second_person()
    images = []
    for i in range(50):
        image = np.zeros((160, 400, 3), np.uint8) + 120
        photo = seen(100, 80)
        x = 20 + 4 * i  # the astronaut goes to the right, behind the other one
        image[:, x : x + 150] = photo[:, 25:175]
        left = 270 - 5 * i
        image[25:135, left : left + 110][mask] = face[mask]
        images.append(image)
    result = run(write_clip(tmp_path / "a.mp4", images), tmp_path / "out")
    table = read_columns(tmp_path / "out" / "faces.parquet")
    assert result.tracks == 2
    x = table["landmarks"].reshape(-1, 68, 3)[:, 30, 0]
    steps = [
        np.polyfit(table["frame"][table["track"] == t], x[table["track"] == t], 1)[0]
        for t in (0, 1)
    ]
    np.testing.assert_allclose(sorted(steps), [-5, 4], atol=0.6)


@pytest.mark.integration
def test_a_killed_run_continues_and_more_workers_give_the_same_files(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving(300))
    words = [sys.executable, "-m", "keras_scnn.reconstruct", str(path), "--preset", "mobile"]
    whole = [*words, "--out", str(tmp_path / "out"), "--workers", "2"]
    subprocess.run(whole, check=True, capture_output=True)
    killed = [*words, "--out", str(tmp_path / "killed"), "--workers", "1"]
    process = subprocess.Popen(killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parts = tmp_path / "killed" / "frames"
    for _ in range(1200):
        if parts.is_dir() and any(parts.glob("part-*.parquet")):
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "clip.json").exists()
    subprocess.run(killed, check=True, capture_output=True)
    one, other = contents(tmp_path / "out"), contents(tmp_path / "killed")
    assert one.keys() == other.keys()
    differ = {name for name in one if one[name] != other[name]}
    tables = {name for name in one if name.endswith(".parquet")}  # they name the command
    assert differ <= tables | {"overlay.mp4"}
    for name in ("faces.parquet", *(f"frames/part-0000{i}.parquet" for i in range(3))):
        a, b = (read_columns(tmp_path / home / name) for home in ("out", "killed"))
        assert all(np.array_equal(a[key], b[key], equal_nan=True) for key in a)


def test_a_preset_may_be_a_path():
    """Settings are noted in the results as JSON."""
    assert ClipSettings(preset=Path("runs") / "mine") == ClipSettings(preset="runs/mine")
    assert json.dumps(ClipSettings(min_score=np.float32(0.5)).min_score) == "0.5"


def test_a_damaged_calibration_is_named_before_the_clip_is_searched(
    clip_file, tmp_path, monkeypatch
):
    damaged = dataclasses.replace(read_preset("mobile"), metadata={"verification": [1, 2]})
    monkeypatch.setattr("keras_scnn.video.run.read_preset", lambda _: damaged)
    with pytest.raises(ValueError, match="metadata 'verification' is damaged: it is a list"):
        reconstruct_clip(clip_file, tmp_path / "out", workers=1)
    assert list(tmp_path.iterdir()) == []


def test_parts_and_workers_out_of_range_are_refused(tmp_path):
    for frames in (0, -1, 2.5):
        with pytest.raises(ValueError, match=f"part_frames is {frames}; it must be .*1 or more"):
            ClipSettings(part_frames=frames)
    for score in (0, 1, 2, float("nan")):  # before the folder is claimed for a run
        with pytest.raises(ValueError, match=f"min_score is {score}; it must lie between 0 and 1"):
            ClipSettings(min_score=score)
    with pytest.raises(ValueError, match=r"min_score is '0.5' \(str\); it must be a number"):
        ClipSettings(min_score="0.5")
    for options, message in (({"unit": "cm"}, "not in 'cm'"), ({"neutral": True}, "neutral is")):
        with pytest.raises(ValueError, match=message):
            ClipSettings(mesh_options=MeshOptions(**options))
    with pytest.raises(ValueError, match="workers is -1; it must be 1 or more"):
        reconstruct_clip(tmp_path / "a.mp4", tmp_path / "out", workers=-1)
    assert list(tmp_path.iterdir()) == []
