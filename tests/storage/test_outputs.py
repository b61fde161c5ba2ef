import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keras_scnn.storage.atomic import partial_name, remove_leftovers, staged_folder
from keras_scnn.storage.outputs import Results, check_out

ROOT = Path(__file__).resolve().parents[2]
KILLED = """
import sys, time
from keras_scnn.storage.atomic import staged_folder
with staged_folder(sys.argv[1]) as aside:
    (aside / "half").write_text("half")
    print(aside, flush=True)
    time.sleep(60)
"""


def publish(results: Results, name: str, *endings: str) -> None:
    def write(stem: Path) -> None:
        for ending in endings:
            stem.with_name(stem.name + ending).write_text(str(results.photos))

    results.publish(name, {"n": 1}, write)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_earlier_result_is_removed_with_all_its_files(tmp_path):
    results = Results(tmp_path, (Path("/photos/anna.jpg"),))
    for i in range(3):
        publish(results, f"anna_{i}", ".obj", "_views.png")
    other = Results(tmp_path, (Path("/photos/annabel.jpg"),))
    publish(other, "annabel", ".obj")
    assert len(names(tmp_path)) == 11
    results.remove_earlier(results.earlier_names("anna"))
    assert names(tmp_path) == {"annabel.json", "annabel.obj"}


def test_a_new_result_leaves_no_file_of_the_earlier_one_with_its_name(tmp_path):
    results = Results(tmp_path / "new", (Path("/photos/anna.jpg"),))
    assert results.earlier_names("anna") == []
    publish(results, "anna", ".obj", "_views.png")
    publish(results, "anna", ".glb")
    assert names(tmp_path / "new") == {"anna.json", "anna.glb"}


@pytest.mark.parametrize("taken", ["anna.json", "anna.obj", "anna_overlay.png"])
def test_a_file_that_is_no_earlier_result_is_never_overwritten(tmp_path, taken):
    (tmp_path / taken).write_text("{}")
    with pytest.raises(ValueError, match=f"anna.jpg: its results would overwrite .*{taken}"):
        publish(Results(tmp_path, (Path("/a/anna.jpg"),)), "anna", ".obj", "_overlay.png")
    assert (tmp_path / taken).read_text() == "{}" and names(tmp_path) == {taken}


def test_results_of_another_photo_stay(tmp_path):
    publish(Results(tmp_path, (Path("/a/1.jpg"), Path("/b/1.jpg"))), "1-1", ".png")
    before = (tmp_path / "1-1.json").read_bytes()
    with pytest.raises(ValueError, match="would overwrite those of /a/1.jpg and /b/1.jpg"):
        publish(Results(tmp_path, (Path("/c/1.jpg"), Path("/d/1.jpg"))), "1-1", ".png")
    assert (tmp_path / "1-1.json").read_bytes() == before


def test_an_input_is_not_deleted_though_a_result_lists_it(tmp_path):
    photo, beside = tmp_path / "anna.jpg", tmp_path / "anna_overlay.png"
    publish(Results(tmp_path, (photo,)), "anna", "_overlay.png")
    results = Results(tmp_path, (photo,), frozenset([beside.resolve()]))
    with pytest.raises(ValueError, match="would overwrite .*anna_overlay.png"):
        publish(results, "anna", "_overlay.png")
    assert beside.is_file()


def test_a_forged_list_deletes_nothing_elsewhere(tmp_path):
    out, victim = tmp_path / "out", tmp_path / "victim"
    out.mkdir(), victim.touch()
    note = {"photos": ["/a.jpg"], "files": ["../victim", str(victim)]}
    (out / "a.json").write_text(json.dumps(note))
    Results(out, (Path("/a.jpg"),)).remove_earlier(["a"])
    assert victim.exists() and not names(out)


def test_a_result_that_fails_leaves_nothing(tmp_path):
    def write(stem: Path) -> None:
        stem.with_name("anna.obj").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Results(tmp_path, (Path("/a/anna.jpg"),)).publish("anna", {}, write)
    assert not names(tmp_path)


def test_leftovers_of_a_killed_run_are_removed_and_files_of_a_running_one_kept(tmp_path):
    def start() -> tuple[subprocess.Popen, Path]:
        run = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        return run, Path(run.stdout.readline().strip())

    (running, alive), (killed, dead) = start(), start()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert dead.is_dir()
    gone = partial_name("0123.json").replace(f"-{os.getpid()}-", "-999999999-")
    (tmp_path / gone).write_text("half")
    with staged_folder(tmp_path):
        pass
    assert alive.is_dir() and len(names(tmp_path)) == 1
    running.kill()
    running.communicate()
    remove_leftovers(tmp_path)
    assert not names(tmp_path)


def test_the_lock_decides_even_if_the_process_id_is_reused(tmp_path):
    left = tmp_path / partial_name("abc")
    (left / "content").mkdir(parents=True)
    (left / "lock").touch()
    remove_leftovers(tmp_path)
    assert not left.exists()


def test_an_output_that_is_a_file_or_below_one_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file: is a file; the results need a folder"):
        check_out(tmp_path / "file")
    with pytest.raises(OSError, match="cannot be written, since .*file is not a writable"):
        check_out(tmp_path / "file" / "out")
    check_out(tmp_path / "new" / "out")
    assert names(tmp_path) == {"file"}


STOPPED = """
import signal, sys, time
from keras_scnn.settings import command
from keras_scnn.storage.atomic import staged_folder

signal.signal(signal.SIGINT, signal.default_int_handler)  # which background jobs lack

@command
def main(arguments):
    with staged_folder() as one, staged_folder(sys.argv[1]) as two:
        (one / "half").write_text("half")
        print("ready", flush=True)
        time.sleep(60)

sys.exit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_leaves_no_temporary_file(tmp_path, number):
    temporary, out = tmp_path / "temporary", tmp_path / "out"
    temporary.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    words = [sys.executable, "-c", STOPPED, str(out)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(words, env=environment, **streams) as run:
        assert run.stdout.readline() == "ready\n"
        assert names(temporary) and names(out)
        run.send_signal(number)
        assert run.wait(20) != 0
    assert not names(temporary) and not names(out)


@pytest.mark.parametrize("room", ["keras_scnn", "export"])
def test_temporary_files_are_made_in_one_place(room):
    using = [p for p in (ROOT / room).rglob("*.py") if "tempfile" in p.read_text()]
    assert {path.name for path in using} <= {"atomic.py"}
