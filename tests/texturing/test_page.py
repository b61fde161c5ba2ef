"""The browser page's textures of rendered mouths, against Python's."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from rendered_mouth import lab_of, lining, mouth_albedo, mouth_photo
from rendered_skin import SIZE, side_light

from keras_scnn.export.chart import describe_chart
from keras_scnn.texturing.atlas import Atlas
from keras_scnn.texturing.texture import photo_texture

PX = 400


@pytest.fixture(scope="module")
def photos(open_face) -> dict:
    """By name: a photo (H, W, 3) uint8 and its posed vertices."""
    albedo = mouth_albedo(Atlas.of(open_face, SIZE))
    image, posed = mouth_photo(open_face, albedo, px=PX)
    barred = image.copy()
    barred[round(posed[open_face.landmark_indices[62], 1]) + 8 :] = 0
    return {
        "open": (image, posed),
        "turned a little, lit from a side": mouth_photo(
            open_face, albedo, yaw=20, light=side_light()
        ),
        "turned": mouth_photo(open_face, albedo, yaw=40),
        "closed": mouth_photo(open_face, albedo, {}),
        "blurred": (cv2.GaussianBlur(image, (0, 0), 9), posed),
        "shifted": (image, posed + [0, 4, 0]),
        "barred": (barred, posed),
    }


@pytest.fixture
def painted(page_sources, open_face, photos, tmp_path) -> dict:
    """By name: the page's texture (S, S, 3) uint8."""
    folder = tmp_path / "photos"
    folder.mkdir()
    chart, maps = describe_chart(open_face)
    (folder / "maps.bin").write_bytes(maps)
    table = {"names": list(photos), "width": PX, "height": PX, "chart": chart}
    (folder / "photos.json").write_text(json.dumps(table))
    for name, (image, posed) in photos.items():
        (folder / f"{name}.rgba").write_bytes(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA).tobytes())
        (folder / f"{name}.posed").write_bytes(np.float32(posed).tobytes())
    shutil.copy(Path(__file__).with_name("paint.test.ts"), page_sources / "src")
    done = subprocess.run(
        ["npm", "test", "--", "src/paint.test.ts"],
        cwd=page_sources, env={**os.environ, "PHOTOS": str(folder)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        name: np.frombuffer((folder / f"{name}.texture").read_bytes(), np.uint8).reshape(
            SIZE, SIZE, 4
        )[..., :3]
        for name in photos
    }


@pytest.mark.integration
@pytest.mark.skipif(not shutil.which("npm"), reason="needs Node.js with npm")
def test_the_page_paints_mouths_as_python_does(open_face, photos, painted):
    atlas = Atlas.of(open_face, SIZE)
    for name, (image, posed) in photos.items():
        expected = photo_texture(open_face, image, posed)
        apart = np.linalg.norm(lab_of(painted[name]) - lab_of(expected), axis=-1)
        for part in (atlas.teeth, lining(atlas), atlas.zones.cheeks):
            assert np.quantile(apart[part], 0.95) < 2.5, name
    own = painted["closed"][atlas.teeth]
    for name in photos:
        is_taken = np.abs(painted[name][atlas.teeth].astype(int) - own).max() > 10
        assert is_taken == name.startswith(("open", "turned a little", "shifted")), name
