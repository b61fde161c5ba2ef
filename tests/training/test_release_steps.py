"""Steps of a release, which are skipped, and repeated if something has changed."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from annotated_faces import write_pts

from keras_scnn.data.records import load_records
from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, render_person
from keras_scnn.io import write_image
from keras_scnn.training.release import PresetPlan, Release, ReleasePlan
from keras_scnn.training.release_steps import Steps


def test_a_step_is_skipped_until_its_inputs_or_its_result_change(tmp_path):
    steps, done, result = Steps(tmp_path / "steps"), [], tmp_path / "result"

    def make():
        done.append(1)
        result.write_text("made")

    for _ in range(2):
        steps.do("one", {"seed": 1}, result, make)
    assert len(done) == 1
    steps.do("one", {"seed": 2}, result, make)
    result.write_text("damaged")
    steps.do("one", {"seed": 2}, result, make)
    assert len(done) == 3 and result.read_text() == "made"
    with pytest.raises(RuntimeError, match="two ended without making"):
        steps.do("two", {}, tmp_path / "missing", lambda: None)


def test_preparing_and_measuring_are_repeated_where_a_file_they_read_changes(tmp_path):
    """Also for a file that an option names, after a space or '=', anywhere in the arguments."""
    data, called = tmp_path / "data", []
    (data / "photos").mkdir(parents=True)
    files = {name: data / name for name in ("photos/a.pts", "offsets.npz", "one.csv", "two.csv")}
    for path in files.values():
        path.write_text("first")
    words = "pts --offsets={data}/offsets.npz --crop-size 64 {data}/photos"
    measure = {"people": "--data {data} --pairs {data}/one.csv,{data}/two.csv"}
    preset = PresetPlan([{}], "x", measure=measure)

    def command(module, words, environment):
        called.append(module.removeprefix("keras_scnn."))
        out = Path(words[words.index("--out") + 1])
        out.mkdir(parents=True, exist_ok=True)
        (out / "results.json").write_text("{}")
        return 0

    def make():
        called.clear()
        release = Release(
            ReleasePlan("free", {"a": preset}, {"x": words}),
            *(data, tmp_path / "work", tmp_path / "out"),
            command,
        )
        release._prepare("x", release._filled(words))
        release._measure("a", "people", release._filled(measure["people"]))
        return list(called)

    (tmp_path / "out" / "a").mkdir(parents=True)
    assert make() == ["prepare", "evaluate"] and make() == []
    for name in ("photos/a.pts", "offsets.npz"):
        files[name].write_text("another length")
        assert "prepare" in make() and make() == []
    label = files["photos/a.pts"]
    label.write_text(label.read_text().replace("a", "o"))
    os.utime(label, (0, 0))
    assert make() == ["prepare", "evaluate"] and make() == [], "corrected, of the same size"
    for name in ("one.csv", "two.csv"):
        files[name].write_text("other")
        assert make() == ["evaluate"] and make() == []


def test_a_failed_step_is_repeated_even_if_its_earlier_inputs_are_restored(tmp_path):
    """It may have changed the result, of which only the sizes of the files are compared."""
    steps, done, result = Steps(tmp_path / "steps"), [], tmp_path / "result"
    result.mkdir()

    def make():
        done.append(1)
        (result / "numbers.txt").write_text(str(len(done)))
        if len(done) == 2:
            raise KeyboardInterrupt

    steps.do("one", {"seed": 1}, result, make)
    with pytest.raises(KeyboardInterrupt):
        steps.do("one", {"seed": 2}, result, make)
    steps.do("one", {"seed": 1}, result, make)
    assert (result / "numbers.txt").read_text() == "3"


class Measured:
    """A release whose one measure, ``people``, writes a file of a given name."""

    def __init__(self, data: Path, work: Path, out: Path):
        self.places, self.count = (data, work, out), 0
        (out / "a").mkdir(parents=True)

    def __call__(self, words: str, name: str) -> dict:
        def command(module, words, environment):
            self.count += 1
            folder = Path(words[words.index("--out") + 1])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.json").write_text(f'{{"of": "{name}"}}')
            return 0

        plan = ReleasePlan("free", {"a": PresetPlan([{}], "x", measure={"people": words})})
        release = Release(plan, *self.places, command)
        return release._measure("a", "people", release._filled(words))


def test_results_of_another_protocol_replace_the_earlier_ones(tmp_path):
    measure = Measured(tmp_path / "data", tmp_path / "work", tmp_path / "out")
    assert measure("--data {data}", "records") == {"of": "records"}
    assert measure("--data {data} --people", "people") == {"of": "people"}
    assert measure.count == 2


@pytest.mark.parametrize("is_linked", [False, True])
def test_files_that_a_release_makes_within_its_data_are_not_inputs(tmp_path, is_linked):
    data = tmp_path / "data"
    data.mkdir()
    (data / "photo.jpg").write_bytes(bytes(3))
    if is_linked:
        (tmp_path / "link").symlink_to(data)
    named = tmp_path / "link" if is_linked else data
    measure = Measured(named, data / "work", data / "out")
    for _ in range(2):
        measure("--data {data}", "people")
    assert measure.count == 1
    (data / "photo.jpg").write_bytes(bytes(4))
    measure("--data {data}", "people")
    assert measure.count == 2
    (data / "work" / "crops").mkdir()
    measure("--data {data} --photos {work}/crops", "people")
    (data / "work" / "crops" / "a.jpg").write_bytes(bytes(5))
    measure("--data {data} --photos {work}/crops", "people")
    assert measure.count == 4, "a folder that a word names counts"


@pytest.fixture
def labeled(tmp_path) -> Path:
    """A folder of data with photos of three rendered people, and .pts files."""
    config, photos = SyntheticConfig(photos=1, size=120), tmp_path / "data" / "photos"
    photos.mkdir(parents=True)
    for person in range(3):
        (crop,), _, (points,) = render_person(config, person)
        write_image(photos / f"{person}.png", crop)
        write_pts(photos / f"{person}.pts", points)
    return photos.parent


def prepared(data: Path, options: str) -> list[str]:
    """A release that only prepares the photos, with the real command; the commands it ran."""
    called: list[str] = []

    def command(module, words, environment):
        called.append(module)
        return importlib.import_module(module).main(words)

    words = f"pts {{data}}/photos --offsets '' --crop-size 32 {options}"
    folders = data.parent / "work", data.parent / "out"
    Release(ReleasePlan("free", {}, {"a": words}), data, *folders, command).make()
    return called


def test_corrected_labels_of_the_same_size_reach_the_records(labeled):
    """A copy with other times calls the command, whose records then keep their manifest."""
    records, label = labeled.parent / "work" / "records" / "a", labeled / "photos" / "1.pts"
    assert prepared(labeled, "--workers 1") and not prepared(labeled, "--workers 1")
    before, manifest = load_records(records).landmarks, (records / "manifest.json").read_bytes()
    size, text = label.stat().st_size, label.read_text()
    digit = next(d for d in "123456789" if f"{d}." in text)
    label.write_text(text.replace(f"{digit}.", f"{int(digit) % 9 + 1}.", 1))
    assert label.stat().st_size == size and prepared(labeled, "--workers 1")
    changed = np.abs(load_records(records).landmarks - before).max(axis=(1, 2)) > 0
    assert changed.tolist() == [False, True, False]
    label.write_text(text)
    assert (
        prepared(labeled, "--workers 1 ") and (records / "manifest.json").read_bytes() == manifest
    )
    os.utime(label, (0, 0))
    assert prepared(labeled, "--workers 1") and (records / "manifest.json").read_bytes() == manifest


@pytest.mark.parametrize("change", ["settings", "photos"])
def test_records_that_no_longer_fit_the_plan_are_named_to_be_deleted(labeled, change):
    records, options = labeled.parent / "work" / "records" / "a", "--workers 1"
    prepared(labeled, options)
    if change == "settings":
        options += " --turned 1"
    else:
        for path in (labeled / "photos").glob("2.*"):
            path.unlink()
    for _ in range(2):
        with pytest.raises(RuntimeError, match=f"status 2; if that is .* delete {records}, and"):
            prepared(labeled, options)
    assert len(load_records(records)) == 3, "a release deletes no results of long steps"
    shutil.rmtree(records)
    assert prepared(labeled, options) and not prepared(labeled, options)
    with pytest.raises(RuntimeError, match="status 2$"):
        shutil.rmtree(records)
        prepared(labeled, "--part train")


def test_runs_that_no_longer_fit_the_plan_are_named_to_be_deleted(tmp_path):
    """With the later runs, which start from them; not if a run only failed."""
    status, work = 0, tmp_path / "work"

    def command(module, words, environment):
        folder = Path(words[words.index("--run") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights.npz").write_bytes(b"some")
        return status

    def train(steps):
        preset = PresetPlan([{"steps": 4}, {"steps": steps}, {"steps": 5}], "x", [0, 0, 1])
        plan = ReleasePlan("free", {"a": preset})
        Release(plan, tmp_path, work, tmp_path / "out", command)._train("a", preset)

    train(4)
    status, folders = 2, f"{work}/runs/a-2 and {work}/runs/a-3"
    with pytest.raises(RuntimeError, match=f"status 2; if .* delete {folders}, and start the rele"):
        train(5)
    with pytest.raises(RuntimeError, match="status 2$"):
        train(4)


def test_a_release_prints_no_messages_of_tensorflow(tmp_path):
    (tmp_path / "plan.yaml").write_text("license: free\npresets: {}\n")
    code = f"""
import sys
from keras_scnn.training.release import Release, main
def make(self):
    import keras
Release.make = make
sys.exit(main([{str(tmp_path / "plan.yaml")!r}]))
"""
    environment = {n: v for n, v in os.environ.items() if not n.startswith("TF_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
