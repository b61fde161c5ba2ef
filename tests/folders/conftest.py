"""Folders of photos that the tests of folder jobs share."""

from pathlib import Path

import numpy as np
import pytest
from skimage import data

from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, render_person
from keras_scnn.io import write_image


@pytest.fixture(scope="session")
def crop_folder(tmp_path_factory) -> Path:
    """Ten synthetic face crops of 120 px, one of 200 px, and two files that are no crops."""
    folder = tmp_path_factory.mktemp("crops")
    crops = [c for p in range(2) for c in render_person(SyntheticConfig(photos=5), p)[0]]
    for i, crop in enumerate(crops):
        write_image(folder / f"{i:02d}.png", crop)
    (large,), _, _ = render_person(SyntheticConfig(photos=1, size=200), 3)
    write_image(folder / "10.png", large)
    write_image(folder / "11_wide.png", np.zeros((50, 90, 3), np.uint8))
    (folder / "05_broken.jpg").write_bytes(b"no photo")
    (folder / "notes.txt").write_text("not a photo")
    return folder


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory) -> Path:
    """Photos with one face, with two and with none, in two folders."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "sub").mkdir()
    astronaut = data.astronaut()[:300]
    write_image(folder / "one.png", astronaut)
    write_image(folder / "sub" / "one.png", astronaut[:, ::-1])
    write_image(folder / "sub" / "two.png", np.hstack([astronaut, astronaut[:, ::-1]]))
    write_image(folder / "wall.png", np.full((200, 200, 3), 90, np.uint8))
    return folder
