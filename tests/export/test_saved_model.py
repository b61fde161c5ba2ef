import io
import json
import os

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from keras_scnn.export.lite import LiteReconstructor, crop_photo
from keras_scnn.export.saved_model import METADATA, write_saved_model
from keras_scnn.export.tf_cropping import crop_bytes
from keras_scnn.photos.cropping import FaceBox, crop_face

BOXES = [(20, 10, 180, 170), (-30.5, -20.25, 129.5, 139.75), (250, 100, 290, 140)]


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("server") / "small"
    write_saved_model(path, small.preset, True, "small", "the card")
    return path


@pytest.fixture(scope="module")
def loaded(folder):
    return tf.saved_model.load(str(folder))


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """(240, 320, 3) uint8 with gradients and an edge."""
    y, x = np.mgrid[:240, :320]
    image = np.stack([x * 0.7, y, 255 - y], axis=-1)
    image[60:120, 60:140] = [200, 120, 40]
    return image.astype(np.uint8)


def encoded(photo: np.ndarray, kind: str) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(photo).save(stream, kind, quality=90)
    return stream.getvalue()


@pytest.mark.integration
def test_one_crop_and_a_batch_give_the_predictions_of_keras(loaded, small):
    expected = small.expected
    batch = loaded.signatures["reconstruct_batch"](image=small.crops)
    one = loaded.signatures["reconstruct"](image=small.crops[:1])
    assert one.keys() == batch.keys() == expected.keys()
    for name, value in expected.items():
        atol = {"vertices": 1e-3, "landmarks": 2e-4, "euler_degrees": 1e-2}.get(name, 5e-5)
        np.testing.assert_allclose(batch[name], value, atol=atol, err_msg=name)
        np.testing.assert_allclose(one[name], value[:1], atol=atol, err_msg=name)


def test_a_folder_that_cannot_be_filled_is_an_error_of_the_file_system(
    small, tmp_path, monkeypatch
):
    def full(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "x; No space left on device\nmore")

    monkeypatch.setattr(tf.saved_model, "save", full)
    with pytest.raises(OSError, match="could not be written .*No space left on device.$"):
        write_saved_model(tmp_path / "small", small.preset)
    assert not list(tmp_path.iterdir())


@pytest.mark.integration
def test_the_default_signature_is_the_batch(loaded):
    names = {"serving_default", "reconstruct", "reconstruct_batch", "reconstruct_jpeg"}
    assert set(loaded.signatures) == names
    default = loaded.signatures["serving_default"].structured_input_signature[1]
    assert default["image"].shape.as_list() == [None, 64, 64, 3]
    assert default["image"].dtype == tf.uint8


@pytest.mark.parametrize("box", [*BOXES, (-80, -80, 420, 420), (100, 100, 101, 101)])
def test_a_crop_of_encoded_bytes_is_the_librarys(photo, box):
    crop = crop_bytes(tf.constant(encoded(photo, "PNG")), tf.constant(box, tf.float32), 64)
    expected = crop_face(photo, FaceBox(*box), 64).image
    difference = np.abs(crop.numpy().astype(int) - expected)
    assert difference.mean() < 0.3
    assert difference.max() <= 1 + 256 / 32  # OpenCV 4 rounds sampling positions to 1/32 px


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
def test_formats_that_the_graph_decodes(photo, kind):
    args = tf.constant(encoded(photo, kind)), tf.constant(BOXES[0], tf.float32), 64
    if kind != "BMP":
        assert crop_bytes(*args).shape == (64, 64, 3)
        return
    with pytest.raises(tf.errors.InvalidArgumentError, match="BMP"):
        crop_bytes(*args)


def test_a_large_box_in_a_large_photo_is_averaged_as_the_library_does():
    photo = np.random.default_rng(0).integers(0, 256, (700, 801, 3), dtype=np.uint8)
    box = (130.5, 60.0, 770.5, 700.0)
    crop = crop_bytes(tf.constant(encoded(photo, "PNG")), tf.constant(box), 64)
    expected = crop_face(photo, FaceBox(*box), 64).image
    assert np.abs(crop.numpy().astype(int) - expected).max() <= 3
    assert expected.std() < 20  # and that is what keeps noise from aliasing


@pytest.mark.parametrize("block", [2, 3, 4, 6])
def test_means_of_blocks_are_rounded_as_numpys(block):
    """Halves, of which the noise has many, up for blocks of 2, else to the even."""
    size = 16
    side = (size + 4) * block
    photo = np.random.default_rng(block).integers(0, 256, (side, side, 3), dtype=np.uint8)
    box = np.array([2, 2, 2 + size, 2 + size], np.float32) * block  # samples lie on whole blocks
    crop = crop_bytes(tf.constant(encoded(photo, "PNG")), tf.constant(box), size).numpy()
    np.testing.assert_array_equal(crop, crop_photo(photo, box, size)[0])


@pytest.mark.integration
def test_photos_in_different_formats_go_in_one_batch(loaded, small, photo):
    photos = [encoded(photo, "PNG"), encoded(photo, "JPEG"), encoded(photo[:200], "PNG")]
    boxes = np.array(BOXES, np.float32)
    outputs = loaded.signatures["reconstruct_jpeg"](photo=tf.constant(photos), box=boxes)
    lite = LiteReconstructor(small.files["float32"])
    pixels = [photo, np.asarray(PIL.Image.open(io.BytesIO(photos[1]))), photo[:200]]
    for i, (image, box) in enumerate(zip(pixels, boxes, strict=True)):
        expected = lite(image, box)
        assert outputs.keys() == expected.keys()
        for name, value in expected.items():
            # The same network; the crops differ by a gray level at most.
            atol = {"vertices": 0.5, "landmarks": 0.5, "features": 0.02, "rotation": 0.02}
            result = outputs[name][i].numpy()
            np.testing.assert_allclose(result, value, rtol=0.01, atol=atol.get(name, 0.5))


@pytest.mark.integration
@pytest.mark.parametrize("data", [b"", b"no photo at all", b"\xff\xd8\xff\xe0 broken"])
def test_bytes_that_are_no_photo_are_refused(loaded, data):
    run = loaded.signatures["reconstruct_jpeg"]
    with pytest.raises(tf.errors.InvalidArgumentError):
        run(photo=tf.constant([data]), box=tf.constant([BOXES[0]], tf.float32))


@pytest.mark.integration
@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 9e6, 9e6),
        (0, 0, 50, 60),
        (5, 5, 5, 5),
        (9, 9, 0, 0),
        (0, 0, np.nan, 9),
        (0, 0, np.inf, np.inf),
    ],
)
def test_boxes_that_are_no_square_are_refused(loaded, photo, box):
    run = loaded.signatures["reconstruct_jpeg"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="box must be a finite, square"):
        run(photo=tf.constant([encoded(photo, "PNG")]), box=tf.constant([box], tf.float32))


@pytest.mark.parametrize("width", [180, 300, 780, 1260])
def test_blocks_are_rounded_to_even_in_an_optimized_graph_too(photo, width):
    """As in the signature, whose ratios of width and size TensorFlow may compute in another way."""
    signature = [tf.TensorSpec((), tf.string), tf.TensorSpec((4,), tf.float32)]
    cut = tf.function(lambda *one: crop_bytes(*one, 120), input_signature=signature)
    box = np.float64([5, 5, 5 + width, 5 + width])
    crop = cut(tf.constant(encoded(photo, "PNG")), tf.constant(box, tf.float32)).numpy()
    np.testing.assert_array_equal(crop, crop_photo(photo, box, 120)[0])


def test_a_box_far_outside_is_a_black_crop(photo):
    box = tf.constant([9e8, 9e8, 9e8 + 256, 9e8 + 256])
    crop = crop_bytes(tf.constant(encoded(photo, "PNG")), box, 64)
    assert not crop.numpy().any()


@pytest.mark.integration
def test_the_metadata_lies_in_the_folder(folder):
    metadata = json.loads((folder / "assets.extra" / METADATA).read_text())
    assert metadata["preset"] == "small"
    assert metadata["card"] == "the card"


@pytest.mark.integration
def test_a_folder_that_is_there_is_not_touched(folder, small):
    before = sorted(folder.rglob("*"))
    with pytest.raises(ValueError, match="already exists"):
        write_saved_model(folder, small.preset)
    assert sorted(folder.rglob("*")) == before
    assert [p.name for p in folder.parent.iterdir()] == ["small"]


@pytest.mark.parametrize("name", [b"bad\xff/a", b"a-bad\xff"])
def test_a_path_that_tensorflow_cannot_write_to_is_refused_by_name(small, tmp_path, name):
    folder = tmp_path / os.fsdecode(name)
    with pytest.raises(ValueError, match=r"^a(-bad\?)?: TensorFlow needs a path in UTF-8"):
        write_saved_model(folder, small.preset)
    assert list(tmp_path.iterdir()) == []
