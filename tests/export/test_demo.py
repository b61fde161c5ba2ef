"""The command of the browser page: refused arguments, and messages about missing tools."""

import os
import socket

import pytest

from keras_scnn.export import demo, website


@pytest.mark.parametrize("host", ["0.0.0.0", "example.org", "192.168.1", ""])
def test_a_host_that_is_no_address_of_a_machine_is_refused(host, tmp_path, capsys):
    assert demo.main(["--host", host, "--cache", str(tmp_path / "cache")]) == 2
    assert "--host is" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "words, said",
    [
        (["--host", "203.0.113.9"], "--host 203.0.113.9 --port 8000: "),  # of documents, RFC 5737
        (["--port", "70000"], "--port is 70000; it must be from 0 to 65535"),
        (["--build", "site", "--host", "127.0.0.1"], "leave out --host"),
        (["--build", "site", "--port", "8080"], "leave out --port"),
        (["--build", "site", "--no-open"], "leave out --no-open"),
        (["--build", f"{__file__}/site"], "cannot be written"),
    ],
)
def test_an_address_that_cannot_be_served_is_refused_at_once(words, said, tmp_path, capsys):
    assert demo.main([*words, "--cache", str(tmp_path / "cache")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_a_site_is_not_built_at_a_url(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        demo.main(["--build", "s3://bucket/site", "--cache", str(tmp_path / "cache")])
    assert (stop.value.code, (tmp_path / "cache").exists()) == (2, False)
    assert "argument --build: s3://bucket/site is a URL" in capsys.readouterr().err


def test_a_port_that_is_taken_is_refused_at_once(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert demo.main(["--port", port, "--cache", str(tmp_path / "cache")]) == 2
    assert f"--port {port}: Address already in use" in capsys.readouterr().err


def test_without_the_quantizer_the_network_is_float32(monkeypatch, capsys):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    assert demo.choose_precision(None) == "float32"
    assert "pip install '.[quantize]'" in capsys.readouterr().out
    monkeypatch.undo()
    assert demo.choose_precision(None) == "float16"
    assert demo.choose_precision("dynamic") == "dynamic"


def test_the_page_is_kept_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert demo.parse([]).cache == tmp_path / "keras_scnn"


def test_a_folder_with_something_in_it_is_not_built_into(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert demo.main(["--build", str(tmp_path), "--cache", str(tmp_path / "cache")]) == 2
    assert "needs a new or an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_openssl_is_looked_for_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(demo.socket.socket, "bind", lambda *_: None)
    with pytest.raises(RuntimeError, match="openssl is not installed"):
        demo.check_address("192.168.1.20", 8000)
    assert demo.check_address("127.0.0.1", 8000)


@pytest.mark.parametrize("words", [["--build", "site"], ["--host", "192.168.1.20", "--no-open"]])
def test_node_is_looked_for_before_the_work_if_files_are_compressed(
    words, tmp_path, monkeypatch, capsys
):
    """Also if the page has been built, which needs npm."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "openssl").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(demo.socket.socket, "bind", lambda *_: None)
    monkeypatch.setattr("keras_scnn.models.presets.load_preset", lambda _: pytest.fail("loaded"))
    assert demo.main([*words, "--cache", str(tmp_path / "cache")]) == 2
    assert "node is not installed; files are compressed" in capsys.readouterr().err


def test_without_node_it_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert demo.main(["--no-open", "--port", "0", "--cache", str(tmp_path / "cache")]) == 2
    assert "npm is not installed" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_a_build_that_fails_leaves_nothing_and_says_why(tmp_path, monkeypatch, capsys):
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\necho no such registry >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:{os.environ['PATH']}")
    assert demo.main(["--no-open", "--port", "0", "--cache", str(tmp_path / "cache")]) == 2
    assert "no such registry" in capsys.readouterr().err
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("there", [False, True])
def test_a_page_is_built_beside_a_part_of_one_and_that_of_another_process_is_kept(
    there, tmp_path, monkeypatch
):
    """Before: 'Directory not empty' at the end of each build."""
    folder = tmp_path / f"web-{website._fingerprint()}"
    (folder / "dist").mkdir(parents=True)
    (folder / "dist" / "part.js").write_text("of the first page")

    def run(command, work):
        (work / "dist").mkdir(exist_ok=True)
        (work / "dist" / "index.html").write_text("new")
        if there:
            (folder / "dist" / "index.html").write_text("theirs")

    monkeypatch.setattr(website.shutil, "which", lambda name: name)
    monkeypatch.setattr(website, "_run", run)
    monkeypatch.setattr(website, "_add_runtime", lambda work: None)
    assert website.build_page(tmp_path) == folder
    assert (folder / "dist" / "index.html").read_text() == ("theirs" if there else "new")
    assert (folder / "dist" / "part.js").exists() == there
    assert list(tmp_path.iterdir()) == [folder]


def test_an_unknown_preset_is_one_clear_line(tmp_path, capsys):
    assert demo.main(["nobody", "--no-open", "--port", "0", "--cache", str(tmp_path)]) == 2
    assert "no preset 'nobody'" in capsys.readouterr().err


def test_a_page_that_appears_at_the_last_moment_is_kept(tmp_path, monkeypatch):
    """Before: it was deleted, or the build ended with 'Directory not empty'."""
    work, folder, replace = tmp_path / "work", tmp_path / "web", os.replace
    for place, text in ((work, "new"), (tmp_path / "theirs", "theirs")):
        (place / "dist").mkdir(parents=True)
        (place / "dist" / "index.html").write_text(text)

    def late(one, other):
        replace(tmp_path / "theirs", folder)
        replace(one, other)

    monkeypatch.setattr(website.os, "replace", late)
    website._put_page(work, folder)
    assert (folder / "dist" / "index.html").read_text() == "theirs"
    monkeypatch.setattr(website.os, "replace", replace)
    with pytest.raises(OSError, match="nowhere"):
        website._put_page(work, tmp_path / "nowhere" / "web")


def test_an_incomplete_page_that_another_process_moves_first_is_no_error(tmp_path, monkeypatch):
    work, folder, replace = tmp_path / "work", tmp_path / "web", os.replace
    (work / "dist").mkdir(parents=True)
    (work / "dist" / "index.html").write_text("new")
    (folder / "dist").mkdir(parents=True)

    def late(one, other):
        if one == folder:
            replace(folder, tmp_path / "moved by another process")
        replace(one, other)

    monkeypatch.setattr(website.os, "replace", late)
    website._put_page(work, folder)
    assert (folder / "dist" / "index.html").read_text() == "new"
