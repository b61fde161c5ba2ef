"""A full disk, or a limit on file sizes: the error names the file that could not be written."""

import errno
import os

import numpy as np
import pytest

from keras_scnn.io import write_image
from keras_scnn.meshes.files import write_mesh
from keras_scnn.storage import atomic_path
from keras_scnn.storage.atomic import staged_folder

resource = pytest.importorskip("resource", reason="no such limits here")


@pytest.fixture
def limited():
    """No file of this process may be larger than 2,000 bytes, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def save(path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(10_000), allow_pickle=False)


@pytest.mark.parametrize("write", [lambda path: path.write_bytes(bytes(5000)), save])
def test_the_file_is_named_and_nothing_of_it_stays(tmp_path, limited, write):
    with (
        pytest.raises(OSError, match=r"big\.npy") as caught,
        atomic_path(tmp_path / "big.npy") as path,
    ):
        write(path)
    assert "partial" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_staged_result_names_its_folder(tmp_path, limited):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with pytest.raises(OSError, match="out'$") as caught, staged_folder(tmp_path / "out") as aside:
        write_image(aside / "a.png", noise)
    assert caught.value.errno == errno.EFBIG and "partial" not in str(caught.value)
    assert not os.listdir(tmp_path / "out")


def test_an_obj_that_does_not_fit_leaves_no_texture_and_the_files_of_before(tmp_path, request):
    corners, uv = np.zeros((3, 3)), np.zeros((3, 2))
    corners[1, 0] = corners[2, 1] = 1
    texture = np.zeros((4, 4, 3), np.uint8)
    write_mesh(tmp_path / "a.obj", corners, [[0, 1, 2]], uv, texture)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    request.getfixturevalue("limited")
    for name in ("a.obj", "b.obj"):
        rows = np.repeat(corners, 40, axis=0), [[0, 41, 82]], np.repeat(uv, 40, axis=0)
        with pytest.raises(OSError, match=f"{name}'?$"):
            write_mesh(tmp_path / name, *rows, texture + 9)
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
        with pytest.raises(OSError, match=r"\.png'?$"):
            write_mesh(tmp_path / name, corners, [[0, 1, 2]], uv, noise)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_errors_that_name_another_file_stay_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic_path(tmp_path / "a"):
        (tmp_path / "elsewhere").read_bytes()
