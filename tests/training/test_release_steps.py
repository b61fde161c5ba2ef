"""Steps of a release, which are skipped, and repeated if something has changed."""

from pathlib import Path

import pytest

from keras_scnn.training.release import PresetPlan, Release, ReleasePlan, Steps


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
