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

import numpy as np
import pytest
import trimesh
from patched_os import patch_os
from skimage import data

from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, render_person
from keras_scnn.folders.batch import BatchSettings
from keras_scnn.folders.folder import list_photos, reconstruct_folder
from keras_scnn.folders.job import FolderJob, part_path
from keras_scnn.io import read_image, read_reduced, write_image
from keras_scnn.meshes.parts import face_parts
from keras_scnn.models import load_preset, save_preset
from keras_scnn.models.inference import open_network, predict
from keras_scnn.parameters import ParameterSpace, Whitening
from keras_scnn.reconstruct import main
from keras_scnn.reconstruction.reconstructor import Reconstructor

pq = pytest.importorskip("pyarrow.parquet", reason="extra 'batch' is not installed")

ROOT = Path(__file__).resolve().parents[2]
CROPS = BatchSettings(crops=True, shard_photos=4)


def rows(out: Path) -> list[dict]:
    return pq.read_table(out / "faces").to_pylist()


def same(one: list[dict], two: list[dict], atol: float = 1e-3) -> None:
    assert [(r["photo"], r["face"]) for r in one] == [(r["photo"], r["face"]) for r in two]
    for a, b in zip(one, two, strict=True):
        for key in set(a) - {"photo", "face"}:
            if a[key] is None or b[key] is None:
                assert a[key] == b[key], key
            else:
                np.testing.assert_allclose(a[key], b[key], atol=atol, rtol=1e-4, err_msg=key)


def test_rows_of_crops_are_what_the_network_predicts(tmp_path, crop_folder):
    done = reconstruct_folder(crop_folder, tmp_path, CROPS, workers=1, command="the command")
    assert (done.photos, done.failed, done.faces) == (13, 2, 11)
    result = rows(tmp_path)
    names = [f"{i:02d}.png" for i in range(10)]
    assert [row["photo"] for row in result] == [*names, "10.png"]
    preset, network = open_network("mobile")
    outputs = predict(preset, np.stack([read_image(crop_folder / name) for name in names]), network)
    for i, row in enumerate(result[:10]):
        np.testing.assert_allclose(row["identity"], outputs.parameters.identity[i], atol=1e-3)
        np.testing.assert_allclose(
            np.reshape(row["image_from_model"], (3, 4)), outputs.parameters.pose[i], atol=1e-2
        )
        angles = [row["pitch"], row["yaw"], row["roll"]]
        np.testing.assert_allclose(angles, np.degrees(outputs.euler[i]), atol=1e-2)
        points = preset.face_model.landmarks(row["identity"], row["expression"])
        camera = np.reshape(row["image_from_model"], (3, 4))
        expected = points @ camera[:, :3].T + camera[:, 3]
        np.testing.assert_allclose(np.reshape(row["landmarks"], (68, 3)), expected, atol=1e-2)
        assert row["score"] is None and row["quality"] is None and row["box"] == [0, 0, 120, 120]
    assert (result[10]["width"], result[10]["box"]) == (200, [0, 0, 200, 200])


def test_metadata_says_what_made_the_rows(tmp_path, crop_folder):
    reconstruct_folder(crop_folder, tmp_path, CROPS, workers=1, command="the command")
    schema = pq.read_schema(part_path(tmp_path, 0))
    outputs = json.loads(schema.metadata[b"keras_scnn"])
    assert outputs["preset"] == "mobile" and outputs["face_model"] == "open_face"
    assert outputs["command"] == "the command" and outputs["keras_scnn_version"]
    assert all(schema.field(name).metadata[b"description"] for name in schema.names)


@pytest.mark.integration
def test_rows_of_photos_are_what_the_reconstructor_returns(tmp_path, photo_folder, capsys):
    out = tmp_path / "out"
    arguments = [str(photo_folder), "--out", str(out), "--workers", "1", "--meshes"]
    assert main([*arguments, "--format", "ply"]) == 1
    assert "4 faces of 3 photos" in capsys.readouterr().out
    with (out / "failed.csv").open(newline="") as file:
        listed = list(csv.reader(file))
    reason = "no face found; it should show one at least 40 px wide"
    assert listed == [["photo", "reason"], ["wall.png", reason]]
    result, reconstructor = rows(out), Reconstructor.from_preset()
    names = ["one.png", "sub/one.png", "sub/two.png", "sub/two.png"]
    assert [row["photo"] for row in result] == names
    assert [row["face"] for row in result] == [0, 0, 0, 1]
    for row in result:
        face = reconstructor(read_image(photo_folder / row["photo"]))[row["face"]]
        np.testing.assert_allclose(np.reshape(row["landmarks"], (68, 3)), face.landmarks, atol=0.02)
        np.testing.assert_allclose(row["box"], face.box.as_array(), atol=0.02)
        assert row["score"] == pytest.approx(face.box.score)
        assert row["quality"] == pytest.approx(face.quality, rel=1e-4)
    meshes = {p.relative_to(out / "meshes").as_posix() for p in out.rglob("*.ply")}
    assert meshes == {f"{row['photo']}_{row['face']}.ply" for row in result}


@pytest.mark.integration
def test_meshes_of_a_folder_have_the_options_of_one_photo(tmp_path, crop_folder, capsys):
    arguments = [str(crop_folder), "--out", str(tmp_path), "--workers", "1", "--crops"]
    options = ["--parts", "skin,eyes", "--unit", "mm", "--neutral"]
    with pytest.raises(SystemExit):
        main([*arguments, *options])
    assert "--unit is for meshes; for a folder, --meshes writes them" in capsys.readouterr().err
    assert main([*arguments, *options, "--meshes", "--format", "ply"]) == 1  # two are no crops
    first, *_ = sorted((tmp_path / "meshes").rglob("*.ply"))
    model = load_preset("mobile").face_model
    neutral = model.vertices(np.float64(rows(tmp_path)[0]["identity"]))
    mesh = trimesh.load(first, process=False)
    assert len(mesh.faces) == sum(map(len, face_parts(model, ("skin", "eyes")).values()))
    np.testing.assert_allclose(np.ptp(mesh.vertices[:, 2]), np.ptp(neutral[:, 1]), rtol=1e-4)
    # The same command continues; other parts would mix other meshes into the folder.
    assert main([*arguments, *options, "--meshes", "--format", "ply"]) == 1  # two are no crops
    assert main([*arguments, "--meshes", "--format", "ply"]) == 2
    assert "other photos or settings (mesh_options" in capsys.readouterr().err


KILLED = """
import sys
from keras_scnn.folders.folder import reconstruct_folder
from keras_scnn.folders.batch import BatchSettings
if __name__ == "__main__":
    reconstruct_folder(sys.argv[1], sys.argv[2], BatchSettings(shard_photos=2), workers=2)
"""


@pytest.mark.integration
def test_a_killed_run_continues_and_gives_the_same_rows(tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for i in range(40):
        write_image(folder / f"{i:02d}.png", data.astronaut()[:256, 80 + i : 336 + i])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED, str(folder), str(out)]
    run = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("faces/part-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = children(run.pid)
    run.send_signal(signal.SIGKILL)
    run.wait()
    before = {p.name: p.stat().st_mtime_ns for p in out.glob("faces/part-*")}
    assert 0 < len(before) < 20 and len(workers) >= 2
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers), "orphans stay"
    (out / "faces" / ".partial-1-part-00007.parquet").write_bytes(b"half")
    settings = BatchSettings(shard_photos=2)
    done = reconstruct_folder(folder, out, settings, workers=1)
    assert (done.photos, done.failed) == (40, 0)
    after = {p.name: p.stat().st_mtime_ns for p in out.glob("faces/*")}
    assert before.items() <= after.items() and not list(out.rglob(".partial-*"))
    assert len(after) == 20
    whole = reconstruct_folder(folder, tmp_path / "whole", settings, workers=1)
    assert whole == done and whole.faces >= 40
    same(rows(out), rows(tmp_path / "whole"))


def children(pid: int) -> list[int]:
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True)
    return [int(word) for word in listing.stdout.split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("damage", [lambda b: b[:-40], lambda b: b[:900] + b"~~" + b[902:]])
def test_a_damaged_part_is_made_again(tmp_path, crop_folder, damage, capsys):
    reconstruct_folder(crop_folder, tmp_path, CROPS, workers=1)
    before, path = rows(tmp_path), part_path(tmp_path, 1)
    path.write_bytes(damage(path.read_bytes()))
    reconstruct_folder(crop_folder, tmp_path, CROPS, workers=1)
    assert f"{path}: damaged; it is made again" in capsys.readouterr().out
    same(rows(tmp_path), before)


def test_a_foreign_part_is_refused(tmp_path, crop_folder):
    reconstruct_folder(crop_folder, tmp_path, CROPS, workers=1)
    good = part_path(tmp_path, 1).read_bytes()
    part_path(tmp_path, 2).write_bytes(good)
    with pytest.raises(ValueError, match=r"part-00002.parquet: not from this run"):
        reconstruct_folder(crop_folder, tmp_path, CROPS, workers=1)
    pa = pytest.importorskip("pyarrow")
    pq.write_table(pa.table({"a": [1]}), part_path(tmp_path, 2))
    with pytest.raises(ValueError, match="not one of faces"):
        reconstruct_folder(crop_folder, tmp_path, CROPS, workers=1)
    part_path(tmp_path, 2).unlink()
    part_path(tmp_path, 9).write_bytes(good)
    with pytest.raises(ValueError, match=r"part-00009.parquet: not from this run"):
        reconstruct_folder(crop_folder, tmp_path, CROPS, workers=1)


@pytest.mark.integration
def test_parts_whose_photos_changed_are_made_again(tmp_path, capsys):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    crops = render_person(SyntheticConfig(photos=3), 0)[0]
    for i, crop in enumerate(crops):
        write_image(folder / f"{i}.png", crop)
    settings = dataclasses.replace(CROPS, shard_photos=1, meshes="obj")
    reconstruct_folder(folder, out, settings, workers=1)
    before = {p.name: p.read_bytes() for p in (out / "faces").iterdir()}
    assert len(list((out / "meshes").iterdir())) == 9
    (folder / "1.png").write_bytes(b"no photo any more")
    done = reconstruct_folder(folder, out, settings, workers=1)
    assert "part-00001.parquet: some of its photos have changed" in capsys.readouterr().out
    after = {p.name: p.read_bytes() for p in (out / "faces").iterdir()}
    assert [name for name in before if before[name] != after[name]] == ["part-00001.parquet"]
    assert (done.failed, done.faces) == (1, 2)
    assert [row["photo"] for row in rows(out)] == ["0.png", "2.png"]
    meshes = {p.name for p in (out / "meshes").iterdir() if p.suffix == ".obj"}
    assert meshes == {"0.png_0.obj", "2.png_0.obj"} and len(list((out / "meshes").iterdir())) == 6


@pytest.mark.parametrize("removed", [1, 2, 4])
def test_meshes_are_removed_even_if_a_run_was_killed_while_removing_them(
    tmp_path, monkeypatch, removed
):
    job = FolderJob(tmp_path, tmp_path, dataclasses.replace(CROPS, meshes="obj"), {}, [])
    (tmp_path / "meshes").mkdir()
    for face in range(3):
        for ending in (".obj", ".mtl", "_texture.png"):
            (tmp_path / "meshes" / f"a.jpg_{face}{ending}").touch()
    unlink, left = os.unlink, [removed]

    def killed_later(path):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        unlink(path)

    patch_os(monkeypatch, "unlink", killed_later)
    with pytest.raises(KeyboardInterrupt):
        job._remove_meshes("a.jpg")
    monkeypatch.undo()
    job._remove_meshes("a.jpg")
    assert not list((tmp_path / "meshes").iterdir())


def denied(monkeypatch, name: str) -> None:
    """Deny this process reading files with a given name."""
    read = Path.read_bytes

    def read_bytes(self):
        if self.name == name:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)


def test_a_photo_that_this_machine_could_not_read_is_tried_again(
    tmp_path, crop_folder, monkeypatch, capsys
):
    """A photo that is damaged or too wide is not."""
    denied(monkeypatch, "01.png")
    done = reconstruct_folder(crop_folder, tmp_path, CROPS, workers=1)
    assert (done.failed, done.faces) == (3, 10)
    assert "01.png,[Errno 13] Permission denied" in (tmp_path / "failed.csv").read_text()
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "faces").iterdir()}
    monkeypatch.undo()
    capsys.readouterr()
    done = reconstruct_folder(crop_folder, tmp_path, CROPS, workers=1)
    assert (done.failed, done.faces) == (2, 11)
    assert "part-00000.parquet: some of its photos could not be read" in capsys.readouterr().out
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "faces").iterdir()}
    assert [name for name in before if before[name] != after[name]] == ["part-00000.parquet"]
    reconstruct_folder(crop_folder, tmp_path, CROPS, workers=1)
    assert "again" not in capsys.readouterr().out


def test_a_photo_that_needs_a_package_is_read_once_it_is_there(tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif", reason="extra 'heif' is not installed")
    (tmp_path / "photos").mkdir()
    crop = render_person(SyntheticConfig(photos=1), 0)[0][0]
    heif.from_bytes("RGB", crop.shape[1::-1], crop.tobytes()).save(tmp_path / "photos" / "a.heic")
    place = tmp_path / "photos", tmp_path / "out", CROPS, 1
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert reconstruct_folder(*place).failed == 1
    assert "needs pillow-heif" in (tmp_path / "out" / "failed.csv").read_text()
    monkeypatch.undo()
    done = reconstruct_folder(*place)
    assert (done.failed, done.faces) == (0, 1)


@pytest.mark.integration
def test_another_preset_or_other_photos_are_refused(tmp_path, crop_folder):
    out = tmp_path / "out"
    reconstruct_folder(crop_folder, out, CROPS, workers=1)
    preset = load_preset("mobile")
    shifted = Whitening(preset.space.whitening.mean + 0.1, preset.space.whitening.scale)
    save_preset(
        tmp_path / "other",
        dataclasses.replace(preset, space=ParameterSpace(preset.face_model, shifted)),
    )
    other = dataclasses.replace(CROPS, preset=str(tmp_path / "other"))
    with pytest.raises(ValueError, match="faces of other photos or settings .*preset_digest"):
        reconstruct_folder(crop_folder, out, other, workers=1)
    (tmp_path / "new").mkdir()
    write_image(tmp_path / "new" / "a.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(ValueError, match="photos differs"):
        reconstruct_folder(tmp_path / "new", out, CROPS, workers=1)


def test_a_run_of_another_procedure_is_not_continued(tmp_path, crop_folder, monkeypatch):
    out = tmp_path / "out"
    reconstruct_folder(crop_folder, out, CROPS, workers=1)
    monkeypatch.setattr("keras_scnn.reconstruction.reconstructor.PROCEDURE", "one pass")
    with pytest.raises(
        ValueError, match="procedure: 'first pass mirrored; photos in sRGB' there, 'one pass' now"
    ):
        reconstruct_folder(crop_folder, out, CROPS, workers=1)


def test_a_folder_without_photos_is_an_error(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    assert main([str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 2
    assert "no photo in it (looked for .jpg" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_folder_or_a_file_is_reported_as_such(tmp_path):
    write_image(tmp_path / "a.png", np.zeros((9, 9, 3), np.uint8))
    for name, error, words in (
        ("nope", FileNotFoundError, "no such folder of photos"),
        ("a.png", NotADirectoryError, "a file; expected a folder of photos"),
    ):
        with pytest.raises(error, match=f"{name}: {words}"):
            reconstruct_folder(tmp_path / name, tmp_path / "out", CROPS, workers=1)
    assert not (tmp_path / "out").exists()


def test_results_inside_of_the_folder_are_no_photos(tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("a.PNG", "out/b.png"):
        (tmp_path / name).touch()
    assert list_photos(tmp_path, tmp_path / "out").photos == ("a.PNG",)


def test_photos_that_all_fail_leave_empty_parts(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"")
    out = tmp_path / "out"
    assert main([str(tmp_path / "in"), "--out", str(out), "--crops", "--workers", "1"]) == 1
    assert pq.read_table(out / "faces").num_rows == 0
    assert "0 faces of 0 photos" in capsys.readouterr().out


def test_without_pyarrow_the_extra_is_named(tmp_path, crop_folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert main([str(crop_folder), "--out", str(tmp_path / "out")]) == 2
    assert "pip install '.[batch]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["a.jpg", "--crops"], "--crops works on one folder"),
        ([".", "--draw"], "not on a folder"),
        ([".", "--workers", "0"], "it must be 1 or more"),
    ],
)
def test_options_of_the_other_kind_are_refused(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        main([*options, "--out", str(tmp_path)])
    assert message in capsys.readouterr().err


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="names are any bytes on Linux alone")
def test_a_photo_of_any_name_or_content_does_not_stop_others(tmp_path, monkeypatch, capfd):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    crop = render_person(SyntheticConfig(photos=1), 0)[0][0]
    for name in ("good.png", f"{'x' * 240}.png", "caf\udce9.png", "a b.png"):
        write_image(folder / name, crop)
    (folder / "broken.webp").write_bytes(b"broken")
    read = read_reduced

    def decode(path):
        if path.name == "broken.webp":
            raise NotImplementedError("a decoder's own error")
        return read(path)

    monkeypatch.setattr("keras_scnn.folders.job.read_reduced", decode)
    arguments = [str(folder), "--out", str(out), "--workers", "1", "--crops", "--meshes"]
    assert main([*arguments, "--format", "obj"]) == 1
    assert "3 faces of 3 photos" in capfd.readouterr().out
    assert [row["photo"] for row in rows(out)] == ["a b.png", "good.png", f"{'x' * 240}.png"]
    meshes = list((out / "meshes").glob("*.obj"))
    assert len(meshes) == 3 and all(
        "map_Kd" in p.read_text() for p in (out / "meshes").glob("*.mtl")
    )
    with (out / "failed.csv").open(newline="", errors="surrogateescape") as file:
        failed = dict(list(csv.reader(file))[1:])
    assert failed == {
        "broken.webp": "a decoder's own error",
        "caf\udce9.png": failed["caf\udce9.png"],
    }
    assert "not UTF-8" in failed["caf\udce9.png"]


@pytest.mark.parametrize("workers", [0, -1, 2.5])
def test_an_invalid_number_of_workers_is_refused(tmp_path, crop_folder, workers):
    with pytest.raises(ValueError, match=f"workers is {workers}; it must be .*1 or more"):
        reconstruct_folder(crop_folder, tmp_path / "out", CROPS, workers)
    assert not (tmp_path / "out").exists()
