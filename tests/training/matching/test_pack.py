"""Photos packed with a margin around their crops."""

import dataclasses

import cv2
import numpy as np
import pytest

from keras_scnn.data.mixture import Mixture
from keras_scnn.data.records import part_of
from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, cached_records
from keras_scnn.fitting import FitOptions, fit_landmarks
from keras_scnn.geometry.crops import crop_from_image
from keras_scnn.training.matching import pack as packing
from keras_scnn.training.matching.pack import frame, read_pack, single_fits, write_pack

SIZE, MARGIN = 120, 20


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """Three photos each of two rendered people."""
    config = SyntheticConfig(people=2, photos=3, size=48)
    records = cached_records(config, tmp_path_factory.mktemp("cache"))
    return Mixture(part_of(records, np.arange(6)), np.zeros(6, int))


def test_the_middle_of_a_frame_is_the_crop():
    rng = np.random.default_rng(1)
    photo = cv2.resize(rng.uniform(0, 255, (9, 9, 3)).astype(np.float32), (200, 180))
    to_crop = crop_from_image(np.array([10.0, 30, 130, 150]), SIZE)
    content, limits = frame(photo.astype(np.uint8), to_crop, SIZE, MARGIN)
    framed = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    middle = framed[MARGIN:-MARGIN, MARGIN:-MARGIN]
    assert np.abs(middle - photo[30:150, 10:130]).mean() < 2  # a JPEG
    np.testing.assert_array_equal(limits, [10, 0, 159, 159])  # 10 px are beyond the left edge


def test_a_pack_has_the_records_and_nothing_around_bare_crops(mixture, open_face, tmp_path):
    write_pack(tmp_path / "pack.npz", mixture, open_face)
    pack, records = read_pack(tmp_path / "pack.npz"), mixture.records
    assert pack.margin == 8 and pack.frames.shape == (6, 64, 64, 3)
    np.testing.assert_array_equal(pack.limits, np.tile([8, 8, 55, 55], (6, 1)))
    packed = pack.mixture.records
    images = np.float32(records.images)  # whose noise a JPEG does not keep
    error = np.abs(packed.images - images).mean()
    assert error < 0.2 * np.abs(images[::-1] - images).mean()
    for name in ("parameters", "landmarks", "identity"):
        np.testing.assert_array_equal(getattr(packed, name), getattr(records, name))
    # Photos of one person are fitted one by one: their shapes differ, those of the records do not.
    assert (np.ptp(records.parameters[:3, 12:92], axis=0) == 0).all()
    assert (np.ptp(pack.single_identity[:3], axis=0) > 0).all()


def test_the_photos_of_a_person_are_fitted_separately(mixture, open_face):
    """A person with one photo keeps the identity of the records."""
    three = Mixture(part_of(mixture.records, np.array([0, 1, 3])), np.zeros(3, int))
    fits = single_fits(three, open_face)
    assert (fits[0] != fits[1]).all()
    np.testing.assert_array_equal(fits[2], three.records.parameters[2, 12:92])


def test_the_prior_of_single_fits_is_that_of_the_face_model(mixture, open_face):
    """Other models' fits had the narrower prior of the open face model, unlike ``prepare``'s."""
    other = open_face.replace(name="other")
    points = mixture.records.landmarks[..., :2].astype(np.float64)
    options = FitOptions(identity_sd=1.0, expression_sd=0.5, iterations=15, tolerance=1e-3)
    expected = fit_landmarks(other, points, options=options).parameters.identity
    np.testing.assert_array_equal(single_fits(mixture, other), np.float32(expected))


def test_each_folder_of_photos_belongs_to_its_records(mixture, open_face, tmp_path, monkeypatch):
    """There may be spaces around the commas."""
    matrix = np.tile(np.eye(2, 3, dtype=np.float32), (6, 1, 1))
    names = np.array([f"{i}.jpg" for i in range(6)])
    records = dataclasses.replace(mixture.records, name=names, crop_from_image=matrix)
    several, read = Mixture(records, np.repeat([0, 1], 3)), set()

    def read_image(path):
        read.add(str(path))
        return np.asarray(records.images[[int(path.stem)]])[0]

    monkeypatch.setattr(packing, "read_image", read_image)
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(names):
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / ("one" if i < 3 else "two") / name).touch()
    write_pack(tmp_path / "pack.npz", several, open_face, "one, two ")
    assert read == {f"{'one' if i < 3 else 'two'}/{i}.jpg" for i in range(6)}


def test_another_photo_of_the_same_name_is_refused(mixture, open_face, tmp_path, monkeypatch):
    """As in folders in the wrong order: the labels were trained on with other faces' pixels."""
    smooth = np.stack([cv2.GaussianBlur(image, (0, 0), 4) for image in mixture.records.images[:]])
    names = np.array([f"{i}.jpg" for i in range(6)])
    matrix = np.tile(np.eye(2, 3, dtype=np.float32), (6, 1, 1))
    arrays = {"images": smooth, "name": names, "crop_from_image": matrix}
    records = dataclasses.replace(mixture.records, **arrays)
    several, photos = dataclasses.replace(mixture, records=records), [*range(6)]
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.setattr(packing, "read_image", lambda path: smooth[photos[int(path.stem)]])
    write_pack(tmp_path / "pack.npz", several, open_face, str(tmp_path))
    photos[4] = 1
    with pytest.raises(ValueError, match=r"4\.jpg: does not show what the crop of this name shows"):
        write_pack(tmp_path / "other.npz", several, open_face, str(tmp_path))
    assert not (tmp_path / "other.npz").exists()


def test_photos_and_records_must_fit(mixture, open_face, tmp_path):
    with pytest.raises(ValueError, match="2 folders for 1 of records; give one for each"):
        write_pack(tmp_path / "pack.npz", mixture, open_face, "one,two")
    nameless = dataclasses.replace(mixture.records, name=None)
    nameless = dataclasses.replace(mixture, records=nameless)
    with pytest.raises(ValueError, match="the records do not name their photos"):
        write_pack(tmp_path / "pack.npz", nameless, open_face, "one")


@pytest.mark.parametrize(
    ("name", "scale", "message"),
    [("5.jpg", 1.0, r"one/5\.jpg: no such photo"), ("4.jpg#1", np.nan, r"'4\.jpg#1' is no photo")],
)
def test_a_missing_photo_and_a_turned_copy_are_named_before_any_photo_is_read(
    mixture, open_face, tmp_path, monkeypatch, name, scale, message
):
    """They were named after all photos before them were packed."""
    matrix = np.tile(np.eye(2, 3, dtype=np.float32), (6, 1, 1))
    matrix[5] *= scale
    names = np.array([*(f"{i}.jpg" for i in range(5)), name])
    (tmp_path / "one").mkdir()
    for one in names[:5]:
        (tmp_path / "one" / one).touch()
    records = dataclasses.replace(mixture.records, name=names, crop_from_image=matrix)
    monkeypatch.setattr(packing, "read_image", lambda path: pytest.fail("a photo was read"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        several = dataclasses.replace(mixture, records=records)
        write_pack(tmp_path / "pack.npz", several, open_face, str(tmp_path / "one"))


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("sizes", lambda a: a[:-1], "photos of"),
        ("sizes", lambda a: a[::-1].cumsum(), "photos of"),
        ("files", lambda a: np.zeros_like(a), "photo 0 is not a JPEG"),
        ("margin", lambda a: np.array(0), "margin of 0 px"),
        ("margin", lambda a: np.array(32), "margin of 32 px"),
        ("landmarks", lambda a: a[:4], "6 photos, but"),
        ("source", None, "source"),
        ("config", lambda a: np.array("[]"), "settings of the records are not a table"),
    ],
)
def test_a_damaged_pack_is_named(mixture, open_face, tmp_path, name, change, reason):
    path = tmp_path / "pack.npz"
    write_pack(path, mixture, open_face)
    arrays = dict(np.load(path, allow_pickle=False))
    old = arrays.pop(name)
    np.savez(path, **arrays, **({} if change is None else {name: change(old)}))
    with pytest.raises(ValueError, match=f"pack.npz: not a pack of photos.*{reason}"):
        read_pack(path)


def test_a_pack_has_no_mirror_images_of_its_people(mixture, open_face, tmp_path):
    """Of three people of two photos each, the first is the mirror image of the last."""
    person = np.repeat([0, 1, 2], 2)
    numbers = {"identity": person.astype(np.int32), "mirror": np.int32([2, -1, 0])[person]}
    several = dataclasses.replace(mixture, records=dataclasses.replace(mixture.records, **numbers))
    write_pack(tmp_path / "pack.npz", several, open_face)
    pack = read_pack(tmp_path / "pack.npz")
    np.testing.assert_array_equal(pack.mixture.records.identity, [0, 0, 1, 1])
    np.testing.assert_array_equal(pack.mixture.records.landmarks, mixture.records.landmarks[:4])
    assert len(pack.frames) == len(pack.mixture.source) == len(pack.single_identity) == 4
    np.testing.assert_array_equal(pack.mixture.records.mirror, [2, 2, -1, -1])


def test_a_pack_keeps_the_settings_of_the_records(mixture, open_face, tmp_path):
    """So that blends, which show no person's own face, are recognized as blends."""
    config = {"joined": [{"source": "folder"}, {"source": "blends", "share": 0.5}]}
    records = dataclasses.replace(mixture.records, config=config)
    write_pack(tmp_path / "pack.npz", Mixture(records, np.repeat([0, 1], 3)), open_face)
    packed = read_pack(tmp_path / "pack.npz").mixture
    offsets = packed.records.config.pop("landmark_offsets")
    assert packed.records.config == config
    np.testing.assert_allclose(offsets, open_face.landmark_offsets)
    np.testing.assert_array_equal(packed.photographed(), [True] * 3 + [False] * 3)
