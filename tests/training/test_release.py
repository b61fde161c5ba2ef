"""Releases: the mean of runs, solved heads, and the whole procedure in resumable steps."""

import dataclasses
import importlib
import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from keras_scnn.data.mixture import Mixture
from keras_scnn.data.records import FaceRecords, save_records
from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, cached_records
from keras_scnn.geometry.camera import compose
from keras_scnn.models import load_preset, save_preset
from keras_scnn.models.preset_network import CHANNELS
from keras_scnn.models.presets import preset_folder
from keras_scnn.parameters import ParameterSpace
from keras_scnn.settings import configuration, read_yaml
from keras_scnn.training import run
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.digests import content_digest
from keras_scnn.training.recipes import RECIPES, recipe_path
from keras_scnn.training.release import PresetPlan, Release, ReleasePlan, read_plan
from keras_scnn.training.release import main as release_main
from keras_scnn.training.release_weights import averaged, solve_features, with_covariance


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of one network with other weights and another whitening."""
    folder, preset = tmp_path_factory.mktemp("runs"), load_preset("mobile")
    metadata = {
        "config": {"seed": 1, "data": "/a/path"},
        "state": {"step": 5, "seconds": 2.0, "checkpoint": "x"},
    }
    first = dataclasses.replace(preset, metadata=metadata, within_person_covariance=None)
    save_preset(folder / "a", first)
    other = load_preset("mobile")
    for weight in other.core.trainable_weights:
        weight.assign(1.01 * np.asarray(weight))
    scale = other.space.whitening.scale.copy()
    scale[20:30] *= 2
    whitening = dataclasses.replace(other.space.whitening, scale=scale)
    save_preset(
        folder / "b",
        dataclasses.replace(
            other, metadata=metadata, space=ParameterSpace(other.face_model, whitening)
        ),
    )
    return folder


@pytest.mark.integration
def test_a_release_of_several_runs_has_the_mean_of_their_weights(runs):
    preset = averaged([load_preset(runs / name) for name in "ab"], [1, 3], "free")
    first, second = (load_preset(runs / name) for name in "ab")
    for mean, a, b in zip(
        preset.core.weights, first.core.weights, second.core.weights, strict=True
    ):
        if not mean.path.startswith("parameters/"):
            expected = (np.asarray(a) + 3 * np.asarray(b)) / 4
            np.testing.assert_allclose(np.asarray(mean), expected, atol=1e-5)
    # A head for unwhitened parameters is the mean of two such heads, whatever the whitening.
    kernels = [
        p.core.get_layer("parameters").kernel * p.space.whitening.scale
        for p in (preset, first, second)
    ]
    np.testing.assert_allclose(kernels[0], (kernels[1] + 3 * kernels[2]) / 4, atol=1e-4)
    history = {"config": {"seed": 1}, "state": {"step": 5, "seconds": 2.0}}
    assert preset.metadata["runs"] == [history, history] and preset.metadata["shares"] == [
        0.25,
        0.75,
    ]


@pytest.mark.integration
def test_a_run_that_is_only_the_start_of_the_next_may_have_another_network(runs):
    last, metadata = load_preset(runs / "b"), load_preset(runs / "a").metadata
    other = dataclasses.replace(load_preset("aflw-mobilenet-0.5"), metadata=metadata)
    before = [np.asarray(weight) for weight in last.core.weights]
    preset = averaged([other, last], [0.0, 1.0], "free")
    for weight, value in zip(preset.core.weights, before, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), value)
    with pytest.raises(ValueError, match="different networks"):
        averaged([other, load_preset(runs / "b")], [0.5, 0.5], "free")


def test_a_release_of_one_run_is_that_run_with_a_covariance(runs):
    preset = averaged([load_preset(runs / "a")], [1.0], "free")
    assert preset.metadata["config"] == {"seed": 1} and preset.within_person_covariance is None
    images = np.random.default_rng(0).integers(0, 255, (6, 120, 120, 3)).astype(np.uint8)
    records = FaceRecords(
        images,
        np.zeros((6, preset.layout.size), np.float32),
        np.zeros((6, 68, 3), np.float32),
        np.repeat(np.arange(3, dtype=np.int32), 2),
        "open_face",
    )
    mixture = Mixture(records, np.zeros(6, int))
    scatter = with_covariance(preset, mixture, np.arange(4)).within_person_covariance
    assert scatter.shape == (80, 80) and np.linalg.matrix_rank(scatter) == 2  # 4 photos, 2 people


@pytest.mark.integration
def test_features_are_solved_from_the_embeddings_of_people_trained_on():
    preset, rng = load_preset("accurate"), np.random.default_rng(0)
    images = np.stack(
        [
            cv2.resize(rng.integers(0, 256, (5, 5, 3)).astype(np.uint8), (120, 120))
            for _ in range(60)
        ]
    )
    layer = preset.core.get_layer("features_linear")
    hidden = keras.Model(preset.core.input, layer.input).predict(images, verbose=0)
    turned = np.linalg.qr(rng.normal(size=(layer.units, layer.units)))[0]
    embedding = hidden @ np.asarray(layer.kernel) @ turned.astype(np.float32)
    unseen = 50
    embedding[unseen:] = rng.normal(0, 100, (10, layer.units))  # of people held out
    parameters = np.zeros((60, preset.layout.size), np.float32)
    parameters[:, preset.layout.pose] = compose(np.eye(3), 1.0, np.zeros(3)).ravel()
    records = FaceRecords(
        images,
        parameters,
        np.zeros((60, 68, 3), np.float32),
        np.arange(60, dtype=np.int32),
        "open_face",
        embedding=embedding,
    )
    solve_features(preset, Mixture(records, np.zeros(60, int)), np.arange(unseen))
    features = np.asarray(preset.core(images[:unseen].astype(np.float32))["features"])
    centered = embedding - embedding.mean(axis=0)
    wanted = centered[:unseen] / np.linalg.norm(centered[:unseen], axis=1, keepdims=True)
    assert (features * wanted).sum(axis=1).mean() > 0.9
    short = Mixture(dataclasses.replace(records, embedding=embedding[:, :8]), np.zeros(60, int))
    with pytest.raises(ValueError, match=f"of length {layer.units} are needed"):
        solve_features(preset, short, np.arange(unseen))


def test_the_packages_release_is_a_plan_of_known_settings():
    plan = read_plan(RECIPES / "release.yaml")
    assert set(plan.presets) == {"mobile", "accurate"}
    for preset in plan.presets.values():
        configs = []
        for settings in preset.runs:
            known = read_yaml(recipe_path(settings["recipe"])) | settings
            del known["recipe"]
            configs.append(configuration(TrainConfig, known))
        assert [(one.batches, one.trained) for one in configs] == [
            ("matching", "all"),
            ("groups", "expression"),
        ]
        network = "joint_head", "identity_encoder", "feature_size", *CHANNELS
        first, second = ({name: getattr(one, name) for name in network} for one in configs)
        assert first == second, "the second run goes on with the network of the first"


def test_the_commands_of_the_packages_release_accept_their_arguments(tmp_path):
    plan = read_plan(RECIPES / "release.yaml")
    Release(plan, tmp_path / "data", tmp_path / "work", tmp_path / "out").check()
    for preset in plan.presets.values():
        folders = [folder for settings in preset.runs for folder in settings["data"].split(",")]
        assert {Path(folder).name for folder in folders} <= set(plan.prepare)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prepare": {"x": "pts d --ofsets b"}}, r"prepare: x: .*unknown option --ofsets .did you"),
        ({"prepare": {"x": "blinks d --offsets b"}}, "prepare: x: .*--offsets is for .* blinks"),
        ({"prepare": {"x": "pts {dat}/a"}}, r"'{dat}/a': only {data} and {work} are allowed"),
        ({"prepare": {"x": "pts {/a"}}, "'{/a': only {data} and {work} are allowed"),
        ({"runs": [{}, {"step": 3}]}, "presets: a: run 2: unknown.* 'step'"),
        ({"runs": [{"recipe": "papier"}, {}]}, "no recipe 'papier' .did you mean 'paper'"),
        ({"measure": {"people": "--people"}}, "presets: a: people: .*required: --data"),
        ({"calibrate": "--data d --last x"}, "presets: a: calibrate: .*invalid int value: 'x'"),
    ],
)
def test_a_wrong_command_of_a_plan_is_named_before_the_first_is_run(
    tmp_path, capsys, change, message
):
    preset = {"runs": [{}, {}], "shares": [0, 1], "records": "x"}
    plan = {"license": "free", "presets": {"a": preset}}
    (plan if "prepare" in change else preset).update(change)
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))
    folders = {"--data": tmp_path, "--work": tmp_path / "work", "--out": tmp_path / "o"}
    words = [str(word) for pair in folders.items() for word in pair]
    assert release_main([str(tmp_path / "plan.yaml"), *words]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("error:") == 1, error
    assert [path.name for path in tmp_path.iterdir()] == ["plan.yaml"]


RUNS = "license: free\npresets: {a: {runs: [{}], records: x, shares: [1, 2]}}"
PLAN = "license: free\npresets:\n  a:\n    runs: [{{}}]\n    records: x\n    {}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (RUNS, "1 runs, 2 shares"),
        (RUNS.replace("[{}]", "[{}, {}]").replace("2]", "0]"), "the last above 0"),
        ("license: free", "plan.yaml: the key 'presets' is missing"),
        ("lisense: free", r"plan.yaml: unknown key 'lisense' \(did you mean 'license'\?\); choose"),
        (RUNS.replace("runs", "run"), r"plan.yaml: presets: a: unknown key 'run' \(did you mean"),
        (RUNS.replace("runs: [{}], ", ""), "plan.yaml: presets: a: the key 'runs' is missing"),
        ("license: free\npresets: 3", "presets: must hold names and values, not int"),
        ("- free", "plan.yaml: must hold names and values, not list"),
        ("license: free\npresets: {1: {}}", "presets: the name 1 is not text; put it in quotes"),
        (PLAN.format("calibrate: 5"), r"plan.yaml: presets: a: calibrate is 5 \(int\); .* str"),
        (PLAN.format("about:"), r"presets: a: about is None \(NoneType\); it must be str"),
        (PLAN.format("held_out: a"), "presets: a: held_out is 'a'"),
        (PLAN.format("measure: [a]"), "presets: a: measure: must hold names and values, not list"),
        (PLAN.format("measure: {b: 5}"), "presets: a: measure: b is 5"),
        (PLAN.format("shares: [a]"), "presets: a: shares: 1 is 'a'"),
        (
            PLAN.format("shares: [.inf]"),
            "presets: a: a share is inf; it must be 0 or more",
        ),
        (PLAN.format("held_out: -3"), "presets: a: held_out is -3; it must be 0 or more"),
        (
            PLAN.replace("[{{}}]", "[paper]").format(""),
            "a: runs: 1: must hold names and values, not",
        ),
        (PLAN.replace("[{{}}]", "paper").format(""), "presets: a: runs is 'paper'"),
        ("license: free\nprepare: {a: 5}\npresets: {}", "plan.yaml: prepare: a is 5"),
        (
            RUNS.replace("{a:", "{../a:"),
            "plan.yaml: presets: the name '../a' is not a valid file",
        ),
        ("license: free\nprepare: {a/b: x}\npresets: {}", "prepare: the name 'a/b' is not a valid"),
        (PLAN.format("measure: {'': x}"), "presets: a: measure: the name '' is not a valid"),
        (
            PLAN.format("measure: {calibrate: x}"),
            "measure: the name 'calibrate' is in use by a step",
        ),
    ],
)
def test_a_wrong_plan_is_named(tmp_path, text, message):
    path = tmp_path / "plan.yaml"
    with pytest.raises(FileNotFoundError, match="plan.yaml: no such file"):
        read_plan(path)
    with pytest.raises(IsADirectoryError, match="is a folder; expected the file of a release"):
        read_plan(tmp_path)
    path.write_text(f"{text}\n")
    with pytest.raises(ValueError, match=message):
        read_plan(path)


def test_numbers_of_a_plan_may_be_whole_or_exponential(tmp_path):
    """1e-1 is text in YAML 1.1."""
    text = RUNS.replace("[{}]", "[{}, {}]").replace("[1, 2]", "[1e-1, 2]")
    (tmp_path / "plan.yaml").write_text(f"{text}\n")
    assert read_plan(tmp_path / "plan.yaml").presets["a"].shares == [0.1, 2.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLAN.format("calibrate: --data 'a"), "'--data 'a': No closing quotation"),
        (PLAN.replace("[{{}}]", "[{{recipe: 5}}]").format(""), "presets: a: run 1: recipe is 5"),
    ],
)
def test_a_plan_with_invalid_arguments_or_recipes_is_named(tmp_path, text, message):
    path = tmp_path / "plan.yaml"
    path.write_text(f"{text}\n")
    with pytest.raises(ValueError, match=message):
        Release(read_plan(path), tmp_path, tmp_path, tmp_path).check()


RELEASE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which background jobs lack
from keras_scnn.settings import command
from keras_scnn.training.release import run_command
sys.exit(command(lambda words: run_command("slow_command", [], {}))([]))
"""
# A command that takes some time to end, and records how many signals arrived.
SLOW = """
import signal, sys, time
from pathlib import Path
signals = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: signals.append(1))
print("ready", flush=True)
while not signals:
    time.sleep(0.01)
time.sleep(0.6)
Path("signals").write_text(str(len(signals)))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number, send", [(signal.SIGTERM, os.kill), (signal.SIGINT, os.killpg)])
def test_a_running_command_stops_gracefully_with_the_release(tmp_path, number, send):
    """SIGTERM is sent only to the release, Ctrl-C to both processes."""
    (tmp_path / "slow_command.py").write_text(SLOW)
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(tmp_path)])
    with subprocess.Popen(
        [sys.executable, "-c", RELEASE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as release:
        assert release.stdout.readline() == b"ready\n"
        send(release.pid, number)
        assert release.wait(60) == 128 + number
    assert (tmp_path / "signals").read_text() == "1"


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "plan.yaml").write_text("license: free\npresets: {}\n")

    def missing(self):
        raise ImportError("this needs PyAV")

    monkeypatch.setattr(Release, "make", missing)
    words = [f"--{name}={tmp_path / name}" for name in ("work", "out")]
    assert release_main([str(tmp_path / "plan.yaml"), *words]) == 2
    assert capsys.readouterr().err == "error: this needs PyAV\n"


def in_process(called: list):
    """Runs commands in this process, and records them."""

    def command(module, words, environment):
        called.append((module.removeprefix("keras_scnn."), environment))
        return importlib.import_module(module).main(words)

    return command


def save_rendered_people(folder: Path, cache: Path) -> None:
    """Records of five people, with the landmark offsets of `mobile`."""
    records = cached_records(SyntheticConfig(people=5, photos=4, size=32), cache)
    arrays = {name: np.asarray(getattr(records, name)) for name in records.arrays()}
    offsets = load_preset("mobile").face_model.landmark_offsets
    config = {"landmark_offsets": np.round(offsets.astype(float), 4).tolist()}
    folder.parent.mkdir()
    save_records(folder, dataclasses.replace(records, config=config, **arrays))


def release_of_two_runs(start: str) -> ReleasePlan:
    """Blends are prepared, and two runs of one step are trained, the first from ``start``."""
    settings = {
        "data": "{work}/records/blends,{data}/people",
        "feature_size": 8,
        "batches": "groups",
        "group_people": 2,
        "group_photos": 2,
        "single_photos": 0,
        "steps": 1,
        "minutes": 0.0,
        "held_out": 2,
    }
    plan = PresetPlan(
        runs=[settings | {"start": start}, settings],
        shares=[1.0, 3.0],
        records="{data}/people",
        held_out=2,
        calibrate="--data {data}/people --resamples 0",
        measure={"people": "--data {data}/people --resamples 0"},
        about="A test.",
    )
    prepare = {"blends": "blends {data}/people --count 3 --held-out 2 --workers 1 --crop-size 32"}
    return ReleasePlan("free", {"tiny": plan}, prepare)


@pytest.mark.integration
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("eager_steps")
def test_a_release_from_data_to_card_and_again_without_work(tmp_path, monkeypatch):
    """Rendered people, two runs of one step; the second time nothing is left to do."""
    pytest.importorskip("tensorflow")
    monkeypatch.setattr(run, "evaluate_records", partial(run.evaluate_records, resamples=0))
    save_rendered_people(tmp_path / "data" / "people", tmp_path / "cache")
    start = "aflw-mobilenet-0.5"
    release = release_of_two_runs(start)
    called = []
    places = tmp_path / "data", tmp_path / "work", tmp_path / "presets"
    Release(release, *places, in_process(called)).make()
    assert [name for name, _ in called] == ["prepare", "train", "train", "evaluate", "evaluate"]
    folder = tmp_path / "presets" / "tiny"
    metadata = json.loads((folder / "preset.json").read_text())["metadata"]
    assert metadata["shares"] == [0.25, 0.75] and metadata["verification"]["pairs"] > 10
    assert metadata["digests"]["start"] == content_digest(preset_folder(start))
    assert set(metadata["digests"]["data"]) == {"people"}
    assert metadata["digests"]["result"] == content_digest(folder)
    runs = [json.loads((places[1] / f"runs/tiny-{i}/preset.json").read_text()) for i in (1, 2)]
    first = content_digest(places[1] / "runs/tiny-1")
    assert runs[1]["metadata"]["digests"]["start"] == first
    card = (folder / "CARD.md").read_text()
    assert "A test." in card and metadata["digests"]["result"] in card
    assert "Results: people" in card and "landmark error" in card
    called.clear()
    Release(release, *places, in_process(called)).make()
    assert not called
