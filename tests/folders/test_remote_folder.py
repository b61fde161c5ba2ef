import errno
import io
import shutil
import subprocess
import sys
import urllib.request

import pytest
from stores import FailingStore, fsspec, get, http_server, memory_url, put, s3_server

from keras_scnn.folders.batch import BatchSettings
from keras_scnn.folders.folder import reconstruct_folder
from keras_scnn.io import read_reduced
from keras_scnn.photos.files import find_remote_photos
from keras_scnn.reconstruct import main
from keras_scnn.storage import claims
from keras_scnn.storage.claims import sole_run
from keras_scnn.storage.remote import RemotePath, place

pq = pytest.importorskip("pyarrow.parquet", reason="extra 'batch' is not installed")

CROPS = BatchSettings(crops=True, shard_photos=4)
PARTS = [f"faces/part-{number:05d}.parquet" for number in range(4)]
FILES = {*PARTS, "failed.csv", "plan.json"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(claims, "SETTLE", 0)
    monkeypatch.setattr(claims, "PATIENCE", 0.3)
    monkeypatch.setattr("keras_scnn.storage.remote.WAITS", (0.01,))


@pytest.fixture(scope="module")
def local(tmp_path_factory, crop_folder):
    """The files of a run on the same crops in a local folder."""
    out = tmp_path_factory.mktemp("local")
    reconstruct_folder(crop_folder, out, CROPS, workers=1)
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def same(one: dict[str, bytes], two: dict[str, bytes]) -> None:
    """Except for the parts' keys, which depend on the photos' times and stamps."""
    assert set(one) == set(two) == FILES
    for name in FILES - set(PARTS):
        assert one[name] == two[name], name
    for name in PARTS:
        tables = [pq.read_table(io.BytesIO(content)) for content in (one[name], two[name])]
        assert tables[0].equals(tables[1]), name
        failures = [table.schema.metadata[b"keras_scnn.failures"] for table in tables]
        assert failures[0] == failures[1]


def test_photos_and_results_in_a_store_give_the_same_parts(crop_folder, local, capsys):
    photos, out = memory_url(), memory_url()
    put(photos, crop_folder)
    done = reconstruct_folder(photos, out, CROPS)
    assert (done.photos, done.failed, done.faces) == (13, 2, 11)
    assert done.passed_over == ("notes.txt",)
    first = get(out)
    same(first, local)
    assert reconstruct_folder(photos, out, CROPS) == done and get(out) == first
    fs, root = fsspec.core.url_to_fs(out)
    fs.pipe_file(f"{root}/{PARTS[1]}", first[PARTS[1]][:-40])
    assert reconstruct_folder(photos, out, CROPS) == done and get(out) == first
    assert f"{out}/{PARTS[1]}: damaged; it is made again" in capsys.readouterr().out
    photo_fs, photo_root = fsspec.core.url_to_fs(photos)
    photo_fs.pipe_file(f"{photo_root}/00.png", b"no photo any more")
    again = reconstruct_folder(photos, out, CROPS)
    assert (again.failed, again.faces) == (3, 10)
    assert [name for name in PARTS if get(out)[name] != first[name]] == PARTS[:1]


@pytest.mark.integration
def test_photos_behind_http_and_results_inside_of_a_folder_of_photos(tmp_path, crop_folder, local):
    with http_server(crop_folder) as url:
        reconstruct_folder(url, tmp_path, CROPS, workers=1)
    paths = [path for path in tmp_path.rglob("*") if path.is_file()]
    same({p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in paths}, local)
    photos = memory_url()
    put(photos, crop_folder)
    put(f"{photos}/results/old", crop_folder)
    with pytest.raises(ValueError, match="is not empty, and holds no faces"):
        reconstruct_folder(photos, f"{photos}/results", CROPS)
    done = reconstruct_folder(photos, f"{photos}/new", CROPS)
    assert done.photos == 26  # those of the other folder are photos too
    assert reconstruct_folder(photos, f"{photos}/new", CROPS) == done


@pytest.mark.integration
def test_meshes_go_to_the_store_too(crop_folder):
    photos, out = memory_url(), memory_url()
    fs, root = fsspec.core.url_to_fs(photos)
    for name in ("a/0.png", "a/1.png"):
        fs.pipe_file(f"{root}/{name}", (crop_folder / "00.png").read_bytes())
    settings = BatchSettings(crops=True, meshes="obj")
    reconstruct_folder(photos, out, settings)
    meshes = {name for name in get(out) if name.startswith("meshes/")}
    assert {name for name in meshes if name.endswith(".obj")} == {
        "meshes/a/0.png_0.obj",
        "meshes/a/1.png_0.obj",
    }
    fs.pipe_file(f"{root}/a/1.png", b"no photo any more")
    reconstruct_folder(photos, out, settings)
    assert {name for name in get(out) if name.startswith("meshes/")} == {
        name for name in meshes if "/0.png" in name
    }


def test_keys_that_lead_out_of_the_folder_are_passed_over(monkeypatch):
    odd = ("../up.png", "a/../../up.png", "a//b.png", "./c.png", "a\\..\\d.png", "folder.png/")
    marks = {name: [1, "stamp"] for name in ("a/good.png", *odd)}
    monkeypatch.setattr(RemotePath, "files", lambda self: marks)
    files = find_remote_photos(RemotePath("s3://photos"))
    assert files.photos == ("a/good.png",) and set(files.passed_over) == set(odd)


def test_a_photo_that_vanishes_is_one_failure_and_a_store_that_does_ends_the_run(
    tmp_path, crop_folder, monkeypatch, capsys
):
    photos, out = memory_url(), memory_url()
    put(photos, crop_folder)
    fs, root = fsspec.core.url_to_fs(photos)
    listed = type(fs).find
    gone = ["/00.png"]

    def find(self, path, **options):
        found = listed(self, path, **options)
        if path == root:
            for name in gone:
                fs.rm(f"{root}{name}", recursive=True)
        return found

    monkeypatch.setattr(type(fs), "find", find)
    done = reconstruct_folder(photos, out, CROPS)
    assert (done.photos, done.failed, done.faces) == (13, 3, 10)
    assert '00.png,"no such file, folder or bucket"' in get(out)["failed.csv"].decode()

    def refuse(self, path, **options):
        raise PermissionError("expired")

    monkeypatch.setattr(type(fs), "cat_file", refuse)
    monkeypatch.setattr(type(fs), "ls", refuse)
    arguments = [photos, "--out", str(tmp_path / "out"), "--crops", "--workers", "1"]
    gone.clear()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert f"error: {photos}: the store denies access (expired)" in error
    assert not list((tmp_path / "out" / "faces").iterdir())


def test_a_local_folder_that_vanishes_ends_the_run(tmp_path, crop_folder, monkeypatch):
    shutil.copytree(crop_folder, tmp_path / "photos")

    def read(path):
        shutil.rmtree(tmp_path / "photos", ignore_errors=True)
        return read_reduced(path)

    monkeypatch.setattr("keras_scnn.folders.job.read_reduced", read)
    with pytest.raises(OSError, match="photos: the folder no longer exists"):
        reconstruct_folder(tmp_path / "photos", tmp_path / "out", CROPS, workers=1)
    assert not list((tmp_path / "out" / "faces").iterdir())


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), PermissionError("Access Denied")],
)
def test_a_store_that_is_full_or_denies_ends_the_run_which_continues_later(
    crop_folder, local, capsys, error
):
    FailingStore.error, FailingStore.left = error, 2  # the run's note, and the plan
    out = memory_url().replace("memory", "failing")
    arguments = [str(crop_folder), "--out", out, "--crops", "--workers", "1"]
    assert main(arguments) == 2
    (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("error: "))
    assert f"{out}/faces/part-00000.parquet: the store" in line and str(error) in line
    assert set(get(out)) == {"plan.json"}
    FailingStore.left = 4
    out += "/again"
    with pytest.raises(OSError, match=f"{out}/faces/part-00002.parquet: the store"):
        reconstruct_folder(crop_folder, out, CROPS, workers=1)
    half = get(out)
    assert set(half) == {*PARTS[:2], "plan.json"}
    FailingStore.left = 100
    done = reconstruct_folder(crop_folder, out, CROPS, workers=1)
    assert done.faces == 11
    same(get(out), local)
    assert all(get(out)[name] == half[name] for name in PARTS[:2])


def test_another_version_preset_or_setting_is_refused(crop_folder, monkeypatch, capsys):
    photos, out = memory_url(), memory_url()
    put(photos, crop_folder)
    arguments = [photos, "--out", out, "--workers", "1"]
    assert main([*arguments, "--crops"]) == 1
    before = get(out)
    assert main([*arguments]) == 2
    assert "faces of other photos or settings (crops: True there, False now)" in (
        capsys.readouterr().err
    )
    monkeypatch.setattr("keras_scnn.__version__", "99.0")
    assert main([*arguments, "--crops"]) == 2
    assert "keras_scnn_version: " in capsys.readouterr().err
    assert get(out) == before


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_a_second_run_for_one_folder_is_refused_and_continues_later(
    tmp_path, crop_folder, monkeypatch, capsys, kind
):
    monkeypatch.setattr(claims, "BEAT", 0.05)
    out = str(tmp_path / "out") if kind == "local" else memory_url()
    arguments = [str(crop_folder), "--out", out, "--crops", "--workers", "1"]
    assert main(arguments) == 1
    with sole_run(place(out)):
        assert main(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "writes there; wait until it ends, or choose another folder" in error
    assert main(arguments) == 1  # two files are no crops


def test_memory_urls_need_a_single_process(crop_folder, capsys):
    out = memory_url()
    assert main([str(crop_folder), "--out", out, "--crops", "--workers", "2"]) == 2
    assert "memory:// needs a single process: use --workers 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["s3://a", "s3://b"], "s3://a: a URL must be that of a single folder"),
        (["a.jpg", "--out", "s3://b"], "s3://b: a URL must be that of a single folder"),
        (["a.jpg", "--engine", "ray"], "--engine works on one folder"),
    ],
)
def test_urls_and_engines_are_for_folders(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), *options])
    assert message in capsys.readouterr().err


def test_local_paths_import_no_store(tmp_path, crop_folder):
    code = (
        "import sys; from keras_scnn.folders.folder import *; from pathlib import Path;"
        "list_photos(Path(sys.argv[1]), Path('out')); "
        "print(sorted({'fsspec', 's3fs', 'ray', 'aiohttp'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(crop_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def s3():
    pytest.importorskip("moto", reason="extra 'test' is not installed")
    pytest.importorskip("s3fs", reason="extra 'remote' is not installed")
    with s3_server() as environment:
        yield environment


@pytest.mark.integration
def test_s3_gives_the_same_parts_with_two_processes(s3, crop_folder, local):
    put("s3://photos/all", crop_folder)
    out = "s3://results/of crops"
    done = reconstruct_folder("s3://photos/all", out, CROPS, workers=2)
    assert (done.photos, done.failed, done.faces) == (13, 2, 11)
    first = get(out)
    same(first, local)
    assert reconstruct_folder("s3://photos/all", out, CROPS, workers=1) == done
    assert get(out) == first


@pytest.mark.integration
def test_wrong_buckets_and_credentials_of_s3_are_one_line(s3, crop_folder, monkeypatch, capsys):
    put("s3://photos/all", crop_folder)

    def error_of(photos, out):
        assert main([photos, "--out", out, "--crops", "--workers", "1"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    nowhere = "no such file, folder or bucket"
    assert nowhere in error_of("s3://photos/all", "s3://nowhere/out")
    assert nowhere in error_of("s3://nowhere/all", "s3://results/out")
    assert "no photo in it" in error_of("s3://photos/none", "s3://results/out")
    reset = f"{s3['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    plain = {"Content-Type": "text/plain"}
    urllib.request.urlopen(urllib.request.Request(reset, b"0", plain))
    try:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        assert "denies access" in error_of("s3://photos/all", "s3://results/out")
    finally:
        body = str(10**9).encode()
        urllib.request.urlopen(urllib.request.Request(reset, body, plain))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert "credentials" in error_of("s3://photos/all", "s3://results/out")
