import contextlib
import csv
import dataclasses
import io
import json
import os
import shutil
import signal
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from tiny_encoder import STAND_IN

from keras_scnn.data.records import FaceRecords, load_records, part_of, save_records, split_people
from keras_scnn.evaluation.shape import shape_error
from keras_scnn.geometry.camera import project
from keras_scnn.models import load_preset
from keras_scnn.parameters import FaceParameters, ParameterLayout
from keras_scnn.protocols.records import baseline
from keras_scnn.storage.claims import sole_run
from keras_scnn.train import main, parse
from keras_scnn.training import run as running
from keras_scnn.training.checkpoints import RunState, add_to_curves, check_run_folder, read_state
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.groups import GroupMode
from keras_scnn.training.pairs import PairMode
from keras_scnn.training.records import open_records
from keras_scnn.training.run import train
from keras_scnn.training.summary import read_constant

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.usefixtures("tiny_encoder", "few_resamples")
TINY = dict(
    encoder=STAND_IN,
    start="",
    people=6,
    photos=4,
    held_out=2,
    crop_size=32,
    feature_size=8,
    batch_size=2,
    warmup=1,
    minutes=0.0,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def run_and_output(tmp_path_factory, cache, tiny_encoder, few_resamples):
    """A run of two steps: its folder, its results, and what it printed."""
    folder, output = tmp_path_factory.mktemp("runs") / "tiny", io.StringIO()
    with contextlib.redirect_stdout(output):
        results = train(TrainConfig(run=str(folder), cache=str(cache), steps=2, **TINY))
    return folder, results, output.getvalue()


@pytest.fixture(scope="module")
def run(run_and_output):
    return run_and_output[:2]


def test_a_run_ends_with_every_measure_on_people_that_it_never_saw(run):
    folder, results = run
    assert results.shape.n_faces == results.pose.n_faces == 2 * 4
    written = json.loads((folder / "results.json").read_text())
    assert written["shape"]["vertex_mm"] == pytest.approx(results.shape.vertex_mm)
    assert written["feature_verification"]["auc"] == results.feature_verification.auc


@pytest.mark.integration
def test_the_default_network_starts_from_the_default_preset(tmp_path):
    """One step of next to nothing leaves the released encoder as it is."""
    settings = {k: v for k, v in TINY.items() if k not in ("encoder", "start", "crop_size")}
    run, cache = str(tmp_path / "run"), str(tmp_path / "cache")
    config = TrainConfig(run=run, cache=cache, steps=1, **settings)
    train(dataclasses.replace(config, learning_rate=1e-9))
    kernels = [
        np.asarray(load_preset(one).core.get_layer("conv_pw_13").kernel)
        for one in (run, config.start)
    ]
    np.testing.assert_allclose(*kernels, atol=1e-3)  # half precision


def test_a_run_prints_a_short_table_and_writes_the_long_one(run_and_output, cache):
    folder, results, output = run_and_output
    lines = output.splitlines()
    assert "training ended: 2 of 2 batches" in lines[0]
    heading = next(i for i, line in enumerate(lines) if "before training" in line)
    rows = [line for line in lines[heading + 1 :] if "  " in line]
    assert 8 <= len(rows) <= 12
    (shape,) = (line.split() for line in rows if line.startswith("neutral shape, error  "))
    before = json.loads((folder / "before.json").read_text())
    assert float(shape[3]) == pytest.approx(before["shape.vertex_mm"], abs=0.006)
    assert float(shape[5]) == pytest.approx(results.shape.vertex_mm, abs=0.006)
    (records,) = (load_records(one) for one in cache.iterdir())
    _, unseen = split_people(records.identity, TINY["held_out"], records.mirror)
    measured = part_of(records, unseen)  # all columns are of the held-out photos
    assert len(measured) == results.shape.n_faces < len(records)
    constant = baseline(load_preset(folder), measured)
    assert float(shape[7]) == pytest.approx(constant["shape.vertex_mm"], abs=0.006)
    finite = {name: value for name, value in constant.items() if np.isfinite(value)}
    assert read_constant(folder) == pytest.approx(finite) and len(finite) > 20
    assert "retrieval by shape, rank 1" in (folder / "results.txt").read_text()
    assert not any("retrieval" in line for line in lines)


def test_the_baseline_is_one_answer_for_every_photo(run, cache):
    """Its landmark error is that of the mean parameters' landmarks, recomputed here."""
    preset = load_preset(run[0])
    (records,) = (load_records(folder) for folder in cache.iterdir())
    numbers = baseline(preset, records)
    mean = FaceParameters.from_vector(preset.space.whitening.mean[None], preset.layout)
    points = project(mean.pose, preset.face_model.landmarks(mean.identity, mean.expression))
    distance = np.linalg.norm(points[..., :2] - records.landmarks[..., :2], axis=-1).mean(axis=-1)
    box = np.ptp(records.landmarks[..., :2], axis=1).prod(axis=-1)
    expected = 100 * (distance / np.sqrt(box)).mean()
    assert numbers["landmarks.faces_percent"] == pytest.approx(expected, rel=1e-4)
    model = preset.face_model
    true = model.vertices(records.parameters[:, preset.layout.identity])
    shape = np.broadcast_to(model.vertices(mean.identity), true.shape)
    expected = shape_error(shape, true, model.mean)
    assert numbers["shape.relative"] == pytest.approx(expected.relative, rel=1e-5)
    explained = pytest.approx(expected.explained_variance, abs=1e-5)
    assert numbers["shape.explained_variance"] == explained


def test_the_run_folder_has_curves_logs_and_plots(run):
    folder, _ = run
    assert list(folder.glob("logs/train/events*"))
    for name in ("results.png", "curves.png"):
        assert (folder / name).stat().st_size > 1000
    with (folder / "curves.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["step"] == "2"
    assert np.isfinite([float(row["loss"]), float(row["val_landmarks_a_loss"])]).all()


def test_the_run_folder_is_a_preset(run):
    folder, _ = run
    preset = load_preset(folder)
    outputs = preset.branch(np.zeros((1, 32, 32, 3), np.float32))
    layout = ParameterLayout(preset.face_model.n_identity, preset.face_model.n_expression)
    assert outputs["parameters"].shape == (1, layout.size)
    assert preset.metadata["config"]["people"] == 6
    assert preset.metadata["state"]["done"]


def test_a_run_on_another_face_model_is_a_preset_too(tmp_path, open_face):
    """Commands have no option for it: the run folder holds it."""
    model = open_face.truncated(8, 4).replace(name="mine", mean=open_face.mean * 1.1)
    model.save(tmp_path / "mine.npz")
    folders = {"run": str(tmp_path / "run"), "cache": str(tmp_path / "cache")}
    train(TrainConfig(**TINY | folders, steps=1, face_model=str(tmp_path / "mine.npz")))
    (tmp_path / "mine.npz").unlink()
    assert load_preset(tmp_path / "run").face_model.digest == model.digest


@pytest.mark.integration
def test_a_resumed_run_continues_from_its_checkpoint(tmp_path, run):
    folder = shutil.copytree(run[0], tmp_path / "resumed")
    assert main(["--resume", str(folder), "--steps", "4"]) == 0
    state = read_state(folder)
    assert (state.step, state.done) == (4, True)
    names = {path.name for path in folder.glob("checkpoint*")}
    assert names == {state.checkpoint, state.previous.checkpoint}
    with (folder / "curves.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4"]


@pytest.mark.integration
def test_a_resumed_run_knows_how_large_its_shapes_were(tmp_path, run, monkeypatch, capsys):
    folder = shutil.copytree(run[0], tmp_path / "resumed")
    add_to_curves(folder, {"step": 2, "shape_size": 1e6})
    monkeypatch.setattr("keras_scnn.training.run_folder.COLLAPSED_SIZE", 1e6)
    assert main(["--resume", str(folder), "--steps", "4"]) == 0
    assert "stopped: all shapes have collapsed to the mean face" in capsys.readouterr().out


def test_a_start_that_fails_claims_no_folder(tmp_path, capsys):
    folder, missing = tmp_path / "run", tmp_path / "no-data"
    assert main(["--run", str(folder), "--data", str(missing)]) == 2
    assert "no-data" in capsys.readouterr().err
    assert not folder.exists()
    folder.write_text("a file")
    assert main(["--run", str(folder)]) == 2
    assert "run: is a file; a run needs a folder" in capsys.readouterr().err


def test_the_dtype_policy_is_put_back(tmp_path, monkeypatch):
    def fails(config):
        keras.config.set_dtype_policy("mixed_bfloat16")
        raise ValueError("no data")

    monkeypatch.setattr("keras_scnn.training.run._train", fails)
    with pytest.raises(ValueError, match="no data"):
        train(TrainConfig(run=str(tmp_path)))
    assert keras.config.dtype_policy().name == "float32"


def test_a_stop_is_reported_below_the_progress_bar(tmp_path, cache, monkeypatch, capsys):
    class Sender(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(running, "_tensorboard", lambda config: [Sender()])
    words = [f"--{k.replace('_', '-')}={v}" for k, v in TINY.items()]
    folders = ["--run", str(tmp_path / "run"), "--cache", str(cache)]
    assert main([*words, *folders, "--steps", "4"]) == 130
    said = capsys.readouterr().err
    assert said.endswith("\nstopped after step 1; the same command continues from there\n")
    assert read_state(tmp_path / "run").step == 1


@pytest.mark.integration
def test_a_finished_run_is_measured_again_but_not_trained(run, cache):
    folder, results = run
    before = read_state(folder)
    again = train(TrainConfig(run=str(folder), cache=str(cache), steps=2, **TINY))
    assert read_state(folder) == before
    assert again.landmarks.faces_percent == pytest.approx(results.landmarks.faces_percent, rel=0.05)


def test_one_run_at_a_time_is_in_a_folder(tmp_path, run, cache, monkeypatch):
    """Two would delete each other's checkpoints."""
    config = TrainConfig(run=str(run[0]), cache=str(cache), steps=4, **TINY)
    with sole_run(run[0]), pytest.raises(OSError, match=f"{run[0]}: another run writes there"):
        train(config)
    assert read_state(run[0]).step == 2

    def fit(one, group):
        with pytest.raises(OSError, match="another run writes there"), sole_run(one.folder):
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        train(dataclasses.replace(config, run=str(tmp_path / "run")))


def test_a_run_that_began_while_the_data_was_opened_keeps_its_folder(
    tmp_path, run, cache, monkeypatch
):
    folder, opened = tmp_path / "run", running.open_data

    def slow(config):
        shutil.copytree(run[0], folder)
        return opened(config)

    monkeypatch.setattr(running, "open_data", slow)
    config = TrainConfig(run=str(folder), cache=str(cache), steps=2, learning_rate=0.5, **TINY)
    with pytest.raises(ValueError, match="holds a run that was started with learning_rate"):
        train(config)
    for name in ("config.yaml", "before.json", "state.json"):
        assert (folder / name).read_bytes() == (run[0] / name).read_bytes()


def test_a_run_begins_where_one_was_killed_before_it_wrote_its_settings(tmp_path):
    (tmp_path / ".partial-00000000-17-config.yaml").write_text("run: ")
    check_run_folder(tmp_path, TrainConfig(), ())


@pytest.mark.parametrize("text, lost", [("", "run and no seed"), ("run: runs/a\n", "seed")])
def test_settings_that_are_cut_are_not_completed_by_defaults(tmp_path, text, lost):
    (tmp_path / "config.yaml").write_text(text)
    message = f"config.yaml: not the settings of a run, or damaged: it has no {lost}"
    with pytest.raises(ValueError, match=message):
        check_run_folder(tmp_path, TrainConfig(), ())


def test_damaged_results_before_training_are_reported_before_training(run, tmp_path, capsys):
    folder = shutil.copytree(run[0], tmp_path / "run")
    (folder / "before.json").write_text("")
    assert main(["--resume", str(folder), "--steps", "4"]) == 2
    assert "before.json: not the results before training" in capsys.readouterr().err
    assert read_state(folder).step == 2


def test_a_folder_of_other_files_is_no_run_folder(tmp_path, capsys):
    (tmp_path / "photo.jpg").touch()
    assert main(["--run", str(tmp_path), "--steps", "1"]) == 2
    assert "is not empty, and holds no run; choose another --run" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_start_with_another_encoder_is_refused_before_photos_are_rendered(tmp_path, capsys):
    """Nothing is left behind, so that the corrected command can use the same run folder."""
    out, cache = tmp_path / "run", tmp_path / "cache"
    words = ["--run", str(out), "--cache", str(cache), "--encoder", "mobilenet_1.0"]
    assert main(words) == 2
    message = "start is 'mobile', whose encoder is mobilenet_0.5, but encoder is 'mobilenet_1.0'"
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_that_cannot_be_initialized_leaves_its_folder_free(tmp_path, monkeypatch):
    def fails(*_):
        raise ValueError("another face model")

    monkeypatch.setattr(running, "initialize", fails)
    config = TrainConfig(run=str(tmp_path / "run"))
    with pytest.raises(ValueError, match="another face model"):
        running.start(
            SimpleNamespace(
                folder=tmp_path / "run", config=config, network=None, mode=None, seen=None
            ),
            RunState(),
        )
    assert not list(tmp_path.iterdir())


def test_a_run_cannot_be_resumed_with_fewer_steps_than_it_has_done(run, tmp_path, capsys):
    folder = shutil.copytree(run[0], tmp_path / "resumed")
    before = {path.name: path.read_bytes() for path in folder.glob("*.*")}
    assert main(["--resume", str(folder), "--steps", "1"]) == 2
    message = f"steps is 1, but the run in {folder} has done 2; give the total number of steps"
    assert message in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.glob("*.*")} == before


def test_resume_takes_one_run_that_is_there(run, tmp_path, capsys):
    assert main(["--resume", str(run[0]), "--run", str(tmp_path / "new")]) == 2
    assert "leave out --run" in capsys.readouterr().err
    assert main(["--resume", str(tmp_path)]) == 2
    assert f"{tmp_path}: no run there (no config.yaml)" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_one_photo_of_a_person_makes_no_pairs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--photos", "1"]) == 2
    assert "photos is 1; pairs of one person need 2 or more" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_another_run_in_the_folder_is_not_overwritten(run, capsys):
    folder, _ = run
    assert main(["--run", str(folder), "--encoder", "mobilenet_v2"]) == 2
    message = capsys.readouterr().err
    assert "holds a run that was started with" in message
    assert "encoder '" in message and "', not 'mobilenet_v2'" in message


def test_an_unknown_key_is_an_error_that_lists_the_known_ones(tmp_path, capsys):
    path = tmp_path / "run.yaml"
    path.write_text("encodr: mobilenet_v2\n")
    assert main(["--config", str(path)]) == 2
    assert (
        "unknown key 'encodr' (did you mean 'encoder'?); choose from run, data"
        in capsys.readouterr().err
    )


def test_every_setting_is_an_option():
    result = parse(["--batch-size", "3", "--minutes", "0.5", "--encoder", "resnet50"])
    assert result == TrainConfig(batch_size=3, minutes=0.5, encoder="resnet50")


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="batch_size is 0"):
        TrainConfig(batch_size=0)
    with pytest.raises(ValueError, match="minutes is -1"):
        TrainConfig(minutes=-1)
    with pytest.raises(ValueError, match="only 3 people"):
        split_people(np.arange(3), 3)


def test_the_held_out_people_are_the_last_ones():
    seen, unseen = split_people(np.array([5, 1, 9, 5, 7]), 2)
    np.testing.assert_array_equal(seen, [0, 1, 3])
    np.testing.assert_array_equal(unseen, [2, 4])


def test_runs_that_cannot_start_are_refused_before_people_are_rendered(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for options, words in (
        (["--start", "nothing"], "no preset 'nothing'"),
        (["--people", "9", "--held-out", "9"], "held_out is 9: none of 9 people are left"),
        (["--crop-size", "1056"], "crops of 1056 px; a network takes 1024 px at most"),
    ):
        assert main(["--run", "run", *options]) == 2
        assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_photos_that_no_preset_takes_are_refused(tmp_path):
    """The run would end with a folder that nothing can load."""
    images = np.zeros((2, 1056, 1056, 3), np.uint8)
    arrays = np.zeros((2, 144), np.float32), np.zeros((2, 68, 3), np.float32), np.arange(2)
    save_records(tmp_path, FaceRecords(images, *arrays, "open_face"))
    with pytest.raises(ValueError, match="crops of 1056 px; a network takes 1024 px at most"):
        open_records(TrainConfig(data=str(tmp_path)))


def test_too_few_held_out_people_are_reported(tmp_path, capsys):
    options = ["--people", "4", "--photos", "2", "--crop-size", "48", "--held-out", "1"]
    words = [*options, "--cache", str(tmp_path / "cache"), "--run", str(tmp_path / "run")]
    assert main([*words, "--steps", "1", "--batch-size", "2"]) == 2
    said = capsys.readouterr().err
    assert "held_out is 1: verification on the held-out people needs at least two, " in said


@pytest.mark.parametrize(
    ("part", "is_validation", "who"),
    [
        ([4, 5], True, r"the held-out people \(held_out is 1\)"),
        ([0, 1], False, "the people to train on"),
    ],
)
@pytest.mark.parametrize(
    ("kind", "options", "why"),
    [
        (
            PairMode,
            {},
            "no data set has enough people; the nearest has 1 person; pairs of two people need 2",
        ),
        (GroupMode, {"batches": "groups"}, "1 person with 2 photos or more"),
        (GroupMode, {"batches": "groups", "group_people": 0}, "1 person with 1 photo or more"),
    ],
)
def test_messages_for_too_few_people_say_which(kind, options, why, part, is_validation, who):
    mode = kind.__new__(kind)
    mode._config = TrainConfig(data="records", held_out=1, **options)
    person = np.array([0, 0, 1, 1, 2, 2])
    records = SimpleNamespace(identity=person, euler_degrees=lambda: np.zeros((6, 3)))
    mode.mixture = SimpleNamespace(records=records, sampling=dict)
    with pytest.raises(ValueError, match=f"{who}: identity: {why}"):
        mode.stream(np.array(part), 0, is_validation)


def test_a_row_whose_checkpoint_was_never_written_is_trained_again(tmp_path, monkeypatch):
    """A run killed while saving its first checkpoint starts again, and so do its curves."""
    add_to_curves(tmp_path, {"step": 2, "loss": 1.5})
    monkeypatch.setattr(running, "_fit", lambda run, group, state: state)
    config = TrainConfig(run=str(tmp_path), steps=4)
    killed = running.Run(config, None, None, np.arange(5), np.arange(3), None)
    assert running.fit(killed) == RunState()
    assert not (tmp_path / "curves.csv").exists()


@pytest.mark.parametrize("has_rows", [False, True])
def test_a_run_stopped_before_its_first_row_is_measured_without_curves(
    tmp_path, monkeypatch, capsys, has_rows
):
    for name in ("finished_preset", "evaluate_records", "write_results"):
        monkeypatch.setattr(running, name, lambda *_: "numbers")
    for name in ("measure_constant", "run_table"):
        monkeypatch.setattr(running, name, lambda *_: "a table")
    config = TrainConfig(run=str(tmp_path), steps=4)
    if has_rows:
        add_to_curves(tmp_path, {"step": 2, "loss": 1.5})
    stopped = running.Run(config, None, None, np.arange(5), np.arange(3), None)
    assert running.measure(stopped, RunState(step=2)) == "numbers"
    drawn = "results.png, results-curves.png" + ", curves.png" * has_rows
    assert f"plots: {drawn}\nthe folder is a preset" in capsys.readouterr().out
    assert (tmp_path / "curves.png").exists() == has_rows
