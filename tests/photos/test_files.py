import errno
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from skimage import data

from keras_scnn.data.sources.people import scan_people
from keras_scnn.data.sources.photo_lists import people_photos
from keras_scnn.io import read_image, write_image
from keras_scnn.photos.files import (
    PHOTO_SUFFIXES,
    describe_passed_over,
    find_photos,
    is_photo,
    people_of,
)
from keras_scnn.reconstruct import main
from keras_scnn.storage.images import FORMATS
from keras_scnn.storage.outputs import Results, check_out

ROOT = Path(__file__).resolve().parents[2]
PICTURE = np.zeros((16, 24, 3), np.uint8)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_every_suffix_is_of_a_format_that_is_read():
    wanted = (*FORMATS, "HEIF", "MPO")
    PIL.Image.init()
    known = PIL.Image.registered_extensions() | dict.fromkeys((".heic", ".heif"), "HEIF")
    assert {known[suffix] for suffix in PHOTO_SUFFIXES} <= set(wanted)
    assert {"JPEG", "PNG", "GIF", "AVIF", "JPEG2000", "HEIF"} <= {known[s] for s in PHOTO_SUFFIXES}


def test_the_suffixes_are_named_in_one_place():
    rooms = [*(ROOT / "keras_scnn").rglob("*.py"), *(ROOT / "export").glob("*.py")]
    naming = [path.name for path in rooms if '".jpeg"' in path.read_text()]
    assert naming == ["files.py"]


def test_photos_at_any_depth_and_behind_links_are_found_once(tmp_path):
    folder, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    touch(folder, "a.JPG", "in/b.jfif", "in/deep/c.heic", "notes.txt", "clip.MOV", "bare")
    touch(elsewhere, "d.gif", "e.jp2")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "in" / "around").symlink_to(folder)
    result = find_photos(folder)
    expected = ("a.JPG", "in/b.jfif", "in/deep/c.heic", "linked/d.gif", "linked/e.jp2")
    assert result.photos == expected
    assert result.passed_over == ("bare", "clip.MOV", "in/around/", "notes.txt")
    assert find_photos(folder, folder / "in").photos == (expected[0], *expected[3:])


@pytest.mark.parametrize("link", ["aft", "zoe"])  # before and after its target in the alphabet
def test_a_linked_folder_beside_its_target_is_not_another_person(tmp_path, link):
    folder, elsewhere = tmp_path / "people", tmp_path / "elsewhere"
    touch(folder, "mia/1.jpg", "mia/in/2.jpg", "ned/1.jpg")
    touch(elsewhere, "3.jpg")
    (folder / link).symlink_to(folder / "mia")
    (folder / "ned" / link).symlink_to("../mia/in")
    for name in ("otto", "pia"):
        (folder / name).symlink_to(elsewhere)
    listed = people_photos(folder)
    found = [path.relative_to(folder).as_posix() for path in listed.paths]
    assert found == ["mia/1.jpg", "mia/in/2.jpg", "ned/1.jpg", "otto/3.jpg"]
    assert listed.person.tolist() == [0, 0, 1, 2]
    assert listed.passed_over == tuple(sorted([f"{link}/", f"ned/{link}/", "pia/"]))


def deny(monkeypatch, place, error):
    """Let ``place`` be unreadable: root, as whom tests may run, has all rights."""
    scan = os.scandir

    def scandir(path):
        if Path(path) == place:
            raise OSError(error, os.strerror(error), str(path))
        return scan(path)

    monkeypatch.setattr("os.scandir", scandir)


def test_a_folder_without_rights_is_named_and_does_not_hide_the_others(tmp_path, monkeypatch):
    """It was left out in silence, as if it were empty."""
    touch(tmp_path, "ann/1.jpg", "lost+found/2.jpg")
    deny(monkeypatch, tmp_path / "lost+found", errno.EACCES)
    found = find_photos(tmp_path)
    assert found.photos == ("ann/1.jpg",) and found.passed_over == ("lost+found/ (unreadable)",)
    assert describe_passed_over(found.passed_over) == (
        "1 file passed over: lost+found/ (unreadable) (1 unreadable folder)"
    )


@pytest.mark.parametrize(("place", "error"), [("", errno.EACCES), ("ann", errno.EIO)])
def test_a_folder_that_is_unreadable_itself_or_on_a_failing_disk_is_an_error(
    tmp_path, monkeypatch, place, error
):
    touch(tmp_path, "ann/1.jpg")
    deny(monkeypatch, tmp_path / place, error)
    with pytest.raises(OSError, match=f"{os.strerror(error)}.*{tmp_path / place}"):
        find_photos(tmp_path)


def test_files_passed_over_are_counted_by_kind():
    assert describe_passed_over([]) == ""
    assert describe_passed_over(["a.txt"]) == "1 file passed over: a.txt (1 .txt)"
    names = ["a.mov", "b.mov", "c", "d.mov", "f/", "x.jpg"]
    assert describe_passed_over(names) == (
        "6 files passed over: a.mov, b.mov, c, d.mov, f/, ... "
        "(3 .mov, 1 without suffix, 1 linked folder, 1 loose .jpg)"
    )


def test_a_people_folder_is_the_same_to_all_commands(tmp_path):
    touch(tmp_path, "ann/1.jpg", "ann/more/2.heic", "bob/1.avif", "loose.png", "empty/notes.txt")
    people, passed_over = people_of(find_photos(tmp_path))
    assert people == {"ann": ["ann/1.jpg", "ann/more/2.heic"], "bob": ["bob/1.avif"]}
    assert passed_over == ("empty/notes.txt", "loose.png")
    assert scan_people(tmp_path) == people
    listed = people_photos(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in listed.paths] == sum(
        people.values(), []
    )
    assert listed.person.tolist() == [0, 0, 1] and listed.passed_over == passed_over


def make_dangling(path):
    path.symlink_to("nowhere")


def test_pictures_among_results_are_no_photos(tmp_path):
    for name in ("a.jpg", "earlier/plan.json", "earlier/meshes/a_texture.png", "earlier.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_photos(tmp_path)
    assert found.photos == ("a.jpg", "earlier.png")
    assert found.passed_over == ("earlier/meshes/a_texture.png", "earlier/plan.json")
    assert find_photos(tmp_path / "earlier").photos == ("meshes/a_texture.png",)  # if asked for


def test_pictures_of_results_beside_photos_are_no_photos(tmp_path):
    photo, other = tmp_path / "in" / "a_b.png", tmp_path / "in" / "c.jpg"
    photo.parent.mkdir()
    photo.touch()
    other.touch()

    def write(stem):
        for name in (".png", "_overlay.png", "_views.png"):
            stem.with_name(stem.name + name).touch()

    Results(photo.parent, (photo,), frozenset([photo])).publish("a_b_0", {}, write)
    # Files of other programs: a sidecar of a photo, and lists that are none of this package.
    for name, text in {
        "c.json": '{"files": ["c.jpg"]}',
        "a.json": '{"photos": [1], "files": ["a_b.png"]}',
        "d_0.json": "[]",
        "d_0.png": "",
    }.items():
        (photo.parent / name).write_text(text)
    found = find_photos(tmp_path)
    assert found.photos == ("in/a_b.png", "in/c.jpg", "in/d_0.png")
    assert {"in/a_b_0.png", "in/a_b_0_overlay.png", "in/a_b_0_views.png"} <= set(found.passed_over)
    (photo.parent / "a_b_0.json").unlink()
    assert len(find_photos(tmp_path).photos) == 6


def make_circle(path):
    path.symlink_to(path.name)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "not a regular file; expected a photo"),  # reading it would wait for ever
        (make_dangling, "no such photo"),
        (make_circle, "no such photo"),
        (Path.touch, "not a readable image"),
    ],
)
def test_links_pipes_and_the_like_do_not_stop_the_other_photos(tmp_path, capsys, make, reason):
    (tmp_path / "photos").mkdir()
    make(tmp_path / "photos" / "b.jpg")
    write_image(tmp_path / "photos" / "a.png", data.astronaut())
    photos = [str(tmp_path / "photos" / name) for name in ("b.jpg", "a.png")]
    assert main([*photos, "--preset", "mobile", "--out", str(tmp_path / "one")]) == 1
    said = capsys.readouterr()
    assert f"b.jpg: {reason}" in said.err and "1 face of 1 photo" in said.out
    pytest.importorskip("pyarrow", reason="extra 'batch' is not installed")
    options = ["--preset", "mobile", "--workers", "1", "--out", str(tmp_path / "folder")]
    assert main([str(tmp_path / "photos"), *options]) == 1
    failed = (tmp_path / "folder" / "failed.csv").read_text().replace('"', "")
    assert f"b.jpg,{reason}" in failed
    with pytest.raises((OSError, ValueError), match=f"b.jpg: .*{reason}"):
        read_image(photos[0])


@pytest.mark.parametrize("make", [make_dangling, make_circle])
def test_an_out_that_links_to_no_folder_is_refused_before_the_work(tmp_path, make):
    make(tmp_path / "out")
    for place in (tmp_path / "out", tmp_path / "out" / "deeper"):
        with pytest.raises(OSError, match="cannot be written, since .*out is not a writable"):
            check_out(place)


@pytest.mark.parametrize("suffix", [".jfif", ".gif", ".jp2", ".avif", ".mpo", ".ppm"])
def test_photos_of_further_formats_are_read(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    kind = {".jfif": "JPEG", ".mpo": "JPEG", ".jp2": "JPEG2000"}.get(suffix)
    try:
        PIL.Image.fromarray(PICTURE + 200).save(path, format=kind)
    except (KeyError, OSError) as error:
        pytest.skip(f"Pillow cannot write it: {error}")
    assert is_photo(path)
    np.testing.assert_allclose(read_image(path), 200, atol=3)


def test_heic_is_read_by_the_extra(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="extra 'heif' is not installed")
    heif.register_heif_opener()
    picture = PICTURE.copy()
    picture[:, 12:] = 240
    PIL.Image.fromarray(picture).save(tmp_path / "a.heic", quality=100)
    np.testing.assert_allclose(read_image(tmp_path / "a.heic"), picture, atol=6)
    (tmp_path / "b.heic").write_bytes((tmp_path / "a.heic").read_bytes()[:300])
    with pytest.raises(ValueError, match=r"b.heic: not a readable image"):
        read_image(tmp_path / "b.heic")


def test_without_the_extra_a_heic_photo_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    path = tmp_path / "a.heic"
    path.write_bytes(b"\x00\x00\x00\x1cftypheic\x00\x00\x00\x00mif1heicmiaf" + bytes(64))
    with pytest.raises(ValueError, match="a.heic: .*pip install .*pillow-heif"):
        read_image(path)


def test_the_command_lists_passed_over_files_at_the_end(tmp_path, capsys):
    pytest.importorskip("pyarrow", reason="extra 'batch' is not installed")
    write_image(tmp_path / "photos.jpg", PICTURE[:16, :16])
    folder = tmp_path / "photos"
    touch(folder, "clip.mov", "notes.txt")
    write_image(folder / "a.jpg", PICTURE[:16, :16])
    options = ["--out", str(tmp_path / "out"), "--crops", "--workers", "1"]
    assert main([str(folder), *options]) == 0
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last == "2 files passed over: clip.mov, notes.txt (1 .mov, 1 .txt)"
