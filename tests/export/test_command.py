import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

pytest.importorskip("ai_edge_quantizer")

import keras_scnn
from keras_scnn.export import artifacts, verify
from keras_scnn.export.__main__ import main
from keras_scnn.export.artifacts import Subject, export_file
from keras_scnn.export.crops import Crops, find_crops, split_crops
from keras_scnn.export.lite import LiteReconstructor
from keras_scnn.export.runtimes import median_milliseconds
from keras_scnn.export.tflite import convert_preset
from keras_scnn.export.verify import Limits, VerificationError
from keras_scnn.io import write_image
from keras_scnn.models import Preset, build_branch, load_preset
from keras_scnn.settings import DEFAULT_PRESET

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def crops(small, tmp_path) -> Path:
    folder = tmp_path / "crops"
    folder.mkdir()
    for i, crop in enumerate(small.crops):
        write_image(folder / f"{i:02d}.png", crop)
    return folder


@pytest.fixture(scope="module")
def conversion(small) -> bytes:
    return convert_preset(load_preset(small.folder), False)


@pytest.fixture
def converted(monkeypatch, conversion):
    """The small preset is converted once for several tests, of what is made of it."""
    monkeypatch.setattr(
        artifacts, "convert_preset", lambda _, vertices: {False: conversion}[vertices]
    )


def uniform_limits(value: float) -> Limits:
    return Limits(**dict.fromkeys(vars(verify.LIMITS["int8"]), value))


@pytest.fixture(autouse=True)
def few_repeats(monkeypatch):
    """Times are medians of 3 runs, not 100."""
    monkeypatch.setattr(
        verify, "median_milliseconds", lambda runner, crop, _: median_milliseconds(runner, crop, 3)
    )


@pytest.fixture
def loose(monkeypatch):
    """Limits for the small preset, which is more sensitive than a trained one."""
    monkeypatch.setitem(verify.LIMITS, "int8", uniform_limits(99))


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Names of the slow parts of an export in the order in which they were called."""
    names: list[str] = []

    def count(name: str):
        function = getattr(artifacts, name)
        monkeypatch.setattr(artifacts, name, lambda *a: names.append(name) or function(*a))

    count("convert_preset")
    count("reference_outputs")
    return names


@pytest.mark.integration
def test_the_command_writes_verified_files_with_reports(
    small, crops, calls, tmp_path, loose, capsys
):
    """They replace older ones: an earlier SavedModel is removed with all its files.

    The network is converted to TFLite once, and run in Keras once, for all files.
    """
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    out = tmp_path / "out"
    old = out / "small-savedmodel" / "variables"
    old.mkdir(parents=True)
    (old / "old").write_text("an older export")
    arguments = [str(small.folder), "--to", "tflite,onnx,savedmodel", "--quantize", "float32,int8"]
    assert main([*arguments, "--out", str(out), "--crops", str(crops), "--vertices"]) == 0
    names = ["small-float32.tflite", "small-int8.tflite", "small-savedmodel", "small.onnx"]
    expected = {n + suffix for n in names for suffix in ("", ".json", ".md")}
    assert calls == ["convert_preset", "reference_outputs"]
    assert {p.name for p in out.iterdir()} == expected
    assert (old / "variables.index").is_file() and not (old / "old").exists()
    report = json.loads((out / "small-int8.tflite.json").read_text())
    assert report["verification"]["broken"] == []
    assert report["metadata"]["outputs"]["vertices"]["shape"] == [3716, 3]
    predicted = capsys.readouterr().out
    assert all(f"{out / name}: " in predicted for name in names)
    assert LiteReconstructor(out / names[0])(small.crops[0])["landmarks"].shape == (68, 3)


@pytest.mark.integration
def test_other_crops_can_verify(small, crops, converted, tmp_path):
    out = tmp_path / "new" / "out"
    command = [str(small.folder), "--to", "tflite", "--verify", str(crops)]
    assert main([*command, "--out", str(out)]) == 0
    report = json.loads((out / "small-float32.tflite.json").read_text())
    assert report["verification"]["crops"] == "24 images of crops"


@pytest.mark.integration
def test_a_file_that_disagrees_does_not_ship(
    small, crops, converted, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(verify.LIMITS, "float16", uniform_limits(0))
    out = tmp_path / "out"
    command = [str(small.folder), "--to", "tflite", "--quantize", "float32,float16"]
    assert main([*command, "--crops", str(crops), "--out", str(out)]) == 2
    assert "small-float16.tflite: disagrees with Keras: landmark_px" in capsys.readouterr().err
    assert {p.name for p in out.iterdir()} == {
        f"small-float32.tflite{suffix}" for suffix in ("", ".json", ".md")
    }


@pytest.mark.parametrize(
    ("precision", "are_rendered", "is_hinted"),
    [("int8", True, True), ("int8", False, False), ("float16", True, False)],
)
def test_an_int8_file_refused_after_rendered_faces_names_the_option_for_photos(
    tmp_path, monkeypatch, precision, are_rendered, is_hinted
):
    result = SimpleNamespace(broken=["landmark_px is 3, the limit is 2"])
    monkeypatch.setattr(artifacts, "verify", lambda *_, **__: result)
    monkeypatch.setattr(artifacts, "check_kind", lambda *_: None)
    monkeypatch.setitem(artifacts._WRITERS, "tflite", lambda path, *_: path.write_bytes(b"a"))
    crops = Crops(np.zeros((1, 4, 4, 3), np.uint8), None, "images of faces", are_rendered)
    subject = SimpleNamespace(
        name="a", vertices=False, preset=None, calibration=crops, held_out=crops, expected={}
    )
    with pytest.raises(VerificationError, match="landmark_px is 3, the limit is 2") as caught:
        artifacts.export_file(subject, tmp_path, "tflite", precision)
    assert ("(--crops), not rendered faces" in str(caught.value)) == is_hinted
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("kind", "vertices"), [("tflite", False), ("bundle", True)])
def test_a_bundle_is_verified_with_its_vertices_and_replaces_an_older_one(
    tmp_path, monkeypatch, kind, vertices
):
    class Verified(Exception):
        pass

    def check(*_, **options):
        assert options["vertices"] == vertices
        raise Verified

    def write(path, *_):
        path.mkdir()
        (path / "new").touch()

    monkeypatch.setattr(artifacts, "verify", check)
    monkeypatch.setitem(artifacts._WRITERS, kind, write)
    crops = Crops(np.zeros((1, 4, 4, 3), np.uint8), None, "")
    subject = SimpleNamespace(
        name="a", vertices=False, preset=None, calibration=crops, held_out=crops, expected={}
    )
    with pytest.raises(Verified):
        artifacts.export_file(subject, tmp_path, kind)
    assert list(tmp_path.iterdir()) == []
    old = tmp_path / "a-bundle"
    aside = tmp_path / "aside"
    for folder, name in ((old, "old"), (aside, "new")):
        folder.mkdir()
        (folder / name).touch()
    (tmp_path / "staged").mkdir()
    artifacts._replace(aside.rename(tmp_path / "staged" / "a-bundle"), old)
    assert [path.name for path in old.iterdir()] == ["new"]


def test_a_missing_quantizer_is_named_before_the_work(monkeypatch):
    def missing() -> None:
        raise ImportError("pip install '.[quantize]'")

    monkeypatch.setattr(artifacts, "check_quantizer", missing)
    artifacts.check_kind("tflite", "float32")
    with pytest.raises(ImportError, match="quantize"):
        artifacts.check_kind("tflite", "float16")


def test_rendered_crops_are_known_as_such():
    crops = find_crops(None, 32, 8)
    assert crops.are_rendered and all(part.are_rendered for part in split_crops(crops))


def test_the_packages_own_files_are_not_overwritten(tmp_path, monkeypatch, capsys):
    (tmp_path / "mobile").mkdir()  # no preset: the name means the package's
    monkeypatch.chdir(tmp_path)
    assert main(["mobile", "--attach"]) == 2
    assert "copy a preset of the package first" in capsys.readouterr().err


@pytest.mark.integration
def test_an_interrupted_export_leaves_nothing(small, converted, tmp_path, monkeypatch):
    crops = Crops(small.crops, None, "crops")
    subject = Subject(small.preset, "small", crops, crops)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(artifacts, "verify", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_file(subject, tmp_path / "out", "tflite")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "options, message",
    [
        (
            ["--to", "coreml"],
            "unknown format 'coreml'; choose from tflite, onnx, savedmodel, bundle",
        ),
        (["--to", ","], "--to and --quantize name nothing"),
        (["--to", "tflite", "--quantize", "int4"], "unknown precision 'int4'"),
        (
            ["--to", "onnx", "--quantize", "int8"],
            "--quantize: 'int8' needs tflite or bundle; add one to --to",
        ),
        (["--to", "tflite", "--crops", "gone"], "gone: no such folder of crops"),
        (["--to", "tflite", "--verify", "gone"], "gone: no such folder of crops"),
        (["--to", "tflite", "--attach", "--crops", "gone"], "gone: no such folder of crops"),
        (
            ["--to", "tflite,onnx", "--quantize", "float16", "--crops", "a", "--verify", "b"],
            "--crops has no effect: with --verify they only calibrate int8",
        ),
    ],
)
def test_unfit_options_are_one_clear_error(small, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("keras_scnn.export.crops.PEOPLE", 1)
    assert main([str(small.folder), "--out", "out", *options]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error:")]
    assert message in line
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "option", [["--vertices"], ["--crops", "x"], ["--verify", "x"], ["--out", "x"]]
)
def test_options_of_files_are_refused_where_only_the_network_is_attached(small, capsys, option):
    with pytest.raises(SystemExit):
        main([str(small.folder), "--attach", *option])
    assert f"{option[0]} is for --to; --attach needs" in capsys.readouterr().err


def test_files_need_a_folder_also_where_the_network_is_attached(small, capsys):
    with pytest.raises(SystemExit):
        main([str(small.folder), "--attach", "--to", "tflite"])
    assert "--to needs --out, the folder for its files" in capsys.readouterr().err


def _foreign_file(folder: Path) -> str:
    (folder / "weights.npz").replace(folder.parent / "foreign.npz")
    return str(folder.parent / "foreign.npz")


def _without_weights(folder: Path) -> str:
    (folder / "weights.npz").unlink()
    return str(folder)


def _damaged(folder: Path) -> str:
    path = folder / "weights.npz"
    path.write_bytes(path.read_bytes()[:10000])
    return str(folder)


def _foreign_folder(folder: Path) -> str:
    (folder / "preset.json").write_text('{"model": "something else"}')
    return str(folder)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (_foreign_file, "no preset '.*foreign.npz': give a preset folder"),
        (_without_weights, "weights.npz: no such file"),
        (_damaged, "weights.npz: not a readable .npz file"),
        (_foreign_folder, "preset.json: not the settings of a preset"),
        (lambda _: "nothing", "no preset 'nothing'"),
    ],
)
def test_unfit_presets_are_one_clear_error(small, tmp_path, capsys, spoil, message):
    folder = tmp_path / "preset"
    folder.mkdir()
    for path in small.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    out = tmp_path / "out"
    assert main([spoil(folder), "--to", "tflite", "--out", str(out)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert re.search(message, lines[0])
    assert not out.exists()


def test_a_folder_that_cannot_be_written_is_named(small, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "out"
    assert main([str(small.folder), "--to", "tflite", "--out", str(out)]) == 2
    assert f"error: {out}: cannot be written" in capsys.readouterr().err


def test_the_module_is_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "keras_scnn.export", "--help"],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--quantize" in done.stdout


@pytest.mark.integration
def test_the_released_preset_meets_the_limits(tmp_path):
    """int8 loses at most 0.2 mm, and all but the vertices' basis takes at most 1.2 MB."""
    name = "aflw-mobilenet-0.5"
    calibration, held_out = split_crops(find_crops(None, 120, max_crops=160))
    subject = Subject(load_preset(name), name, calibration, held_out)
    path, result = export_file(subject, tmp_path, "tflite", "int8")
    assert path.stat().st_size <= 1.2e6
    assert result.vertex_mm <= 0.2
    assert result.broken == ()
    predicted = LiteReconstructor(path)(held_out.images[0])
    assert np.isfinite(predicted["landmarks"]).all()


def test_the_default_preset_keeps_them_on_real_photos(tmp_path, shared_data, monkeypatch):
    name = DEFAULT_PRESET
    crops = find_crops(shared_data / "aflw" / "crops", 120, max_crops=160)
    subject = Subject(load_preset(name), name, *split_crops(crops))
    tight = {"landmark_px": 0.2, "landmark_p99_px": 1.0, "vertex_mm": 0.1, "vertex_p99_mm": 0.5}
    limits = dataclasses.replace(verify.LIMITS["int8"], **tight, rotation_degrees=0.5)
    monkeypatch.setitem(verify.LIMITS, "int8", limits)
    _, outputs = export_file(subject, tmp_path, "tflite", "int8")
    assert outputs.broken == ()
    assert outputs.vertex_mm <= 0.2


def test_a_missing_package_is_an_error_before_anything_is_written(
    small, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    out = tmp_path / "out"
    assert main([str(small.folder), "--to", "tflite,onnx", "--out", str(out)]) == 2
    assert "error: ONNX files need tf2onnx" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("kinds, precisions", [("tflite", ["int8"]), (["tflite"], "int8")])
def test_a_string_instead_of_a_list_is_refused(small, tmp_path, kinds, precisions):
    with pytest.raises(TypeError, match="it must be a sequence, such as"):
        keras_scnn.export_preset(small.folder, tmp_path / "out", kinds, precisions)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "kinds, precisions, message",
    [
        (["onnx"], ["int8"], "precisions: 'int8' needs tflite or bundle; add one to kinds"),
        (["onnx", "savedmodel"], ["float32", "float16"], "precisions: 'float16' needs tflite"),
        (["onnx"], ["float32", "int9"], r"unknown precision 'int9' \(did you mean 'int8'"),
        (["onnx"], [], "kinds and precisions name nothing; formats are tflite, onnx"),
        ([], ["float32"], "kinds and precisions name nothing; formats are tflite, onnx"),
        (["tflite"], [], "kinds and precisions name nothing"),
    ],
)
def test_python_refuses_what_the_command_refuses(small, tmp_path, kinds, precisions, message):
    with pytest.raises(ValueError, match=message):
        keras_scnn.export_preset(small.folder, tmp_path / "out", kinds, precisions)
    assert not (tmp_path / "out").exists()


def test_folders_of_crops_may_be_text(small, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder of crops"):
        keras_scnn.export_preset(small.folder, tmp_path, crops=str(tmp_path / "nowhere"))


def test_another_backend_is_refused_before_the_preset_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    monkeypatch.setattr(artifacts, "read_subject", lambda *_: pytest.fail("it was read"))
    assert main(["mobile", "--to", "tflite", "--out", str(tmp_path / "out")]) == 2
    assert "error: Keras runs on jax" in capsys.readouterr().err


def test_a_refusal_is_a_value_error():
    assert issubclass(VerificationError, ValueError)


@pytest.mark.integration
def test_a_preset_is_exported_from_python(small, crops, converted, tmp_path):
    checks = keras_scnn.export_preset(small.folder, tmp_path, ["tflite"], crops=crops)
    (path,) = checks
    assert path == tmp_path / "small-float32.tflite" and path.is_file()
    assert checks[path].crops == "12 of 24 images of crops" and not checks[path].broken
    with pytest.raises(ValueError, match="unknown format 'coreml'"):
        keras_scnn.export_preset(small.folder, tmp_path, ["coreml"])


def test_a_preset_without_an_encoders_name_is_refused(small_preset, tmp_path):
    nameless = dataclasses.replace(small_preset, encoder="")
    with pytest.raises(ValueError, match="encoder is ''; its files are named after it"):
        keras_scnn.export_preset(nameless, tmp_path / "out", ["tflite"])
    assert not (tmp_path / "out").exists()


@pytest.mark.integration
def test_a_network_with_an_own_encoder_is_exported(small_preset, tmp_path):
    """In memory, since ``save_preset`` refuses an encoder that it cannot build by name."""
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Rescaling(1 / 127.5, -1)])
    for width in (8, 16):  # fewer convolutions than "int8" keeps in float
        encoder.add(keras.layers.Conv2D(width, 3, 2, activation="relu"))
    encoder.add(keras.layers.GlobalAveragePooling2D())
    space = small_preset.space
    own = Preset(build_branch(encoder, space.layout, 8), space, "models/own")
    checks = keras_scnn.export_preset(own, tmp_path, ["tflite"], ["float32", "int8"])
    assert [path.name for path in checks] == ["own-float32.tflite", "own-int8.tflite"]
    assert not any(check.broken for check in checks.values())
    checks = keras_scnn.export_preset(own, tmp_path, ["onnx", "savedmodel", "bundle"])
    names = ["own.onnx", "own-savedmodel", "own-float32-bundle"]
    assert [path.name for path in checks] == names
    assert not any(check.broken for check in checks.values())
    described = json.loads((tmp_path / names[-1] / "bundle.json").read_text())
    assert described["digest"] == ""  # that of a preset's files


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_export_leaves_nothing(small, crops, tmp_path, number):
    """A killed one cannot clean up; the next export into the folder does."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from keras_scnn.export.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )  # a background job lacks the handler
    words = [str(small.folder), "--to", "savedmodel", "--crops", str(crops)]
    words += ["--out", str(tmp_path / "out")]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", code, *words], **streams)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob(".partial-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode in (number + 128, -number)
    if number == signal.SIGKILL:
        assert list((tmp_path / "out").iterdir())
        assert main(words) == 0
    assert not list((tmp_path / "out").glob(".partial-*"))
