"""docs/on_device.md names every tensor with its shape."""

import re
from pathlib import Path

import numpy as np
import pytest

from keras_scnn.export.exported_model import output_table
from keras_scnn.export.lite import LiteReconstructor
from keras_scnn.photos.cropping import DETECTOR_SCALE, DETECTOR_SHIFT

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "on_device.md").read_text()


def test_every_output_stands_in_the_table_with_its_shape(small):
    layout, model = small.preset.layout, small.preset.face_model
    letters = {"N": model.n_vertices, "F": small.preset.feature_size}
    letters["12 + K + L"] = layout.size
    for name, output in output_table(small.preset, True).items():
        (shape,) = re.findall(rf"^\| `{name}` \| \((.*?),?\) \| float32 \|", PAGE, re.M)
        sizes = [int(letters.get(part, part)) for part in shape.split(", ")]
        assert sizes == [1, *output.shape], name


def test_the_crop_is_the_librarys():
    assert f"down by {DETECTOR_SHIFT} side" in PAGE
    assert f"square of {DETECTOR_SCALE} side" in PAGE


@pytest.mark.integration
def test_a_vertex_appears_where_the_page_says(small):
    outputs = LiteReconstructor(small.files["float32"])(small.crops[0])
    pose = outputs["parameters"][:12].reshape(3, 4)
    index = small.preset.face_model.landmark_indices
    sites = outputs["vertices"][index] + small.preset.face_model.landmark_offsets
    expected = np.stack([pose[:, :3] @ v + pose[:, 3] for v in sites])
    np.testing.assert_allclose(outputs["landmarks"], expected, atol=1e-3)
