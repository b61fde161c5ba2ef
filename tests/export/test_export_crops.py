import numpy as np
import pytest

from keras_scnn.data.records import FaceRecords, save_records
from keras_scnn.export.crops import find_crops, split_crops
from keras_scnn.io import write_image


def write_images(folder, count: int, size: int = 16) -> None:
    folder.mkdir(exist_ok=True)
    for i in range(count):
        write_image(folder / f"{i:02d}.png", np.full((size, size, 3), i, np.uint8))


def test_images_of_a_folder_are_spread_over_all(tmp_path):
    write_images(tmp_path, 9)
    (tmp_path / "notes.txt").write_text("not looked at")
    crops = find_crops(tmp_path, 16, max_crops=3)
    assert crops.images[:, 0, 0, 0].tolist() == [0, 4, 8]
    assert crops.landmarks is None


def test_face_records_bring_their_landmarks(tmp_path):
    images = np.zeros((4, 16, 16, 3), np.uint8)
    landmarks = np.arange(4 * 68 * 3, dtype=np.float32).reshape(4, 68, 3)
    records = FaceRecords(images, np.zeros((4, 22), "f"), landmarks, np.arange(4), "open_face")
    save_records(tmp_path / "records", records)
    crops = find_crops(tmp_path / "records", 16)
    np.testing.assert_array_equal(crops.landmarks, landmarks)
    assert "4 face records of records" in crops.source


def test_without_a_folder_people_are_rendered():
    crops = find_crops(None, 24, max_crops=4)
    assert crops.images.shape == (4, 24, 24, 3)
    assert crops.images.dtype == np.uint8
    assert crops.images.std() > 10


def test_the_two_halves_share_no_crop(tmp_path):
    write_images(tmp_path, 5)
    calibration, held_out = split_crops(find_crops(tmp_path, 16))
    assert calibration.images[:, 0, 0, 0].tolist() == [0, 2, 4]
    assert held_out.images[:, 0, 0, 0].tolist() == [1, 3]


def test_unfit_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone: no such folder"):
        find_crops(tmp_path / "gone", 16)
    with pytest.raises(ValueError, match="neither face records .* nor images"):
        find_crops(tmp_path, 16)
    write_images(tmp_path / "one", 1)
    with pytest.raises(ValueError, match="1 crop; at least 2"):
        find_crops(tmp_path / "one", 16)
    write_images(tmp_path / "wide", 3)
    with pytest.raises(ValueError, match=r"00.png: 16 x 16 px; crops must be 32 x 32"):
        find_crops(tmp_path / "wide", 32)
    (tmp_path / "wide" / "01.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match="01.png: not a readable image"):
        find_crops(tmp_path / "wide", 16)


def test_the_first_image_of_another_size_ends_the_reading(tmp_path, monkeypatch):
    """Hundreds of whole photos, given by mistake, would not fit into memory."""
    write_images(tmp_path, 5)
    read = []

    def read_image(path):
        read.append(path.name)
        return np.zeros((40, 30, 3), np.uint8)

    monkeypatch.setattr("keras_scnn.export.crops.read_image", read_image)
    with pytest.raises(ValueError, match="00.png: 30 x 40 px; crops must be 16 x 16"):
        find_crops(tmp_path, 16)
    assert read == ["00.png"]
