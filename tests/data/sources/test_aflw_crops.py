import cv2
import numpy as np
import pytest
from annotated_faces import sent_through_a_pipe

from keras_scnn.data.sources.aflw import (
    HAND_WEIGHT,
    LID_TRUST,
    TEACHER_SHIFT_PX,
    TEACHER_TRUST,
    AflwCrops,
    load_targets,
)
from keras_scnn.geometry.landmarks68 import OPENINGS
from keras_scnn.storage.guard import FileError

COUNT = 44


def labels() -> dict[str, np.ndarray]:
    """Hand-made and teacher landmarks that agree, in the published layout; two crops a photo."""
    rng = np.random.default_rng(0)
    teacher = rng.uniform(20, 100, (COUNT, 68, 3)).astype(np.float16)
    visibility = np.full((COUNT, 68), 2, np.uint8)
    visibility[1] = 1
    visibility[2] = 0
    residual = np.full(COUNT, 1.5, np.float16)
    residual[3] = np.nan
    parameters = rng.normal(0, 1, (COUNT, 62)).astype(np.float32)
    parameters[:, :12] = rng.normal(0, 5e-4, (COUNT, 12))
    return {
        "name": np.array([f"image{i // 2:05d}_{i % 2}.jpg" for i in range(COUNT)]),
        "yaw_degrees": rng.normal(0, 40, COUNT).astype(np.float32),
        "landmarks68": (teacher[..., :2].astype(float) + TEACHER_SHIFT_PX).astype(np.float16),
        "visibility68": visibility,
        "landmarks68_residual": residual,
        "teacher_landmarks68": teacher,
        "teacher_bfm62": parameters,
    }


def write(folder, **changes):
    arrays = {**labels(), **changes}
    np.savez(folder / "labels.npz", **{k: v for k, v in arrays.items() if v is not None})
    (folder / "crops").mkdir(exist_ok=True)
    for name in labels()["name"]:
        cv2.imwrite(str(folder / "crops" / name), np.zeros((120, 120, 3), np.uint8))
    return folder


def test_the_sources_of_agreeing_labels_merge_to_them(tmp_path):
    targets = load_targets(write(tmp_path))
    teacher = labels()["teacher_landmarks68"].astype(float)
    expected = teacher[..., :2] + TEACHER_SHIFT_PX
    np.testing.assert_allclose(targets.landmarks[..., :2], expected, atol=0.05)  # float16
    np.testing.assert_allclose(targets.landmarks[..., 2].mean(axis=1), 0, atol=1e-3)


def test_a_hand_made_point_moves_the_merged_one_by_its_share(tmp_path):
    hand = labels()["landmarks68"].astype(np.float32)
    before = load_targets(write(tmp_path)).landmarks
    hand[10, [5, 30, 40], 0] += 1.0
    moved = load_targets(write(tmp_path, landmarks68=hand)).landmarks - before
    # The constant part of the difference, about 1 / COUNT of it, is taken for another site.
    assert moved[10, 30, 0] == pytest.approx(HAND_WEIGHT, abs=0.1)
    assert moved[10, 40, 0] == pytest.approx(1, abs=0.1)  # a lid
    assert moved[10, 5, 0] == pytest.approx(HAND_WEIGHT / 2, abs=0.1)


def test_weights_depend_on_the_source_of_each_landmark(tmp_path):
    weight = load_targets(write(tmp_path)).weight
    half = (1 - TEACHER_TRUST) / 2
    np.testing.assert_allclose(weight[0, 17:], 1)
    np.testing.assert_allclose(weight[0, :17], 1 - half)
    lids = OPENINGS.ravel()
    rest = np.setdiff1d(np.arange(68), lids)
    np.testing.assert_allclose(weight[1, rest[17:]], 1 - half)
    np.testing.assert_allclose(weight[1, lids], 0.5)  # estimated by hand
    np.testing.assert_allclose(weight[2:4, rest], TEACHER_TRUST)
    np.testing.assert_allclose(weight[2:4, lids], LID_TRUST)  # the teacher hardly closes eyes


def test_landmarks_from_only_the_teacher_count_half(tmp_path):
    weight = load_targets(write(tmp_path)).weight
    rest = np.setdiff1d(np.arange(17, 68), OPENINGS)
    np.testing.assert_allclose(weight[2:4, rest], weight[:1, rest].repeat(2, axis=0) / 2)


def test_the_teachers_pixels_become_those_with_centers_at_integers(tmp_path):
    """3DDFA's (x + 1 - x0) * 120 / side, whose 1 is off already, of a usual crop of 270 px."""
    x, x0, scale = np.random.default_rng(1).uniform(50, 250, (COUNT, 68, 2)), 20, 120 / 270
    teacher = np.zeros((COUNT, 68, 3))
    teacher[..., :2] = (x + 1 - x0) * scale - 1
    unlabeled = np.zeros((COUNT, 68), np.uint8)
    write(tmp_path, teacher_landmarks68=teacher, visibility68=unlabeled)
    expected = (x - x0 + 0.5) * scale - 0.5
    landmarks = load_targets(tmp_path).landmarks[..., :2]
    np.testing.assert_allclose(landmarks, expected, atol=0.04)  # 0.28 px, taken as a quarter


def test_parts_share_no_photo_and_are_all_crops_together(tmp_path):
    write(tmp_path)
    train, held_out, everything = (
        AflwCrops(tmp_path, part).names() for part in ("train", "held_out", "all")
    )
    assert sorted(train + held_out) == sorted(everything)
    assert len(held_out) == 4  # photos 0 and 20 of 22, two crops each
    assert not {n[:16] for n in train} & {n[:16] for n in held_out}


def test_a_crop_is_a_person_and_its_box_the_whole_crop(tmp_path):
    source = sent_through_a_pipe(AflwCrops(write(tmp_path)))
    name = source.names()[7]
    photo = source.load(name)
    assert photo.person == source.person(name) == name == "crops/image00003_1.jpg"
    np.testing.assert_array_equal(photo.box, [0, 0, 120, 120])
    np.testing.assert_allclose(photo.landmarks, load_targets(tmp_path).landmarks[7])
    assert photo.read_image().shape == (120, 120, 3)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"labels\.npz: no such file"):
        load_targets(tmp_path)
    (tmp_path / "labels.npz").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"labels\.npz: not a readable \.npz"):
        load_targets(tmp_path)
    visibility = np.zeros((COUNT, 68), np.int8)
    visibility[7, 3] = -1
    write(tmp_path, visibility68=visibility)
    with pytest.raises(ValueError, match="image00003_1.jpg has a visibility68 that is not 0, 1 or"):
        load_targets(tmp_path)
    write(tmp_path, visibility68=None)
    with pytest.raises(ValueError, match=r"visibility68 is missing; expected \(44, 68\)"):
        load_targets(tmp_path)
    write(tmp_path, yaw_degrees=np.zeros(3))
    with pytest.raises(ValueError, match=r"yaw_degrees is \(3,\); expected \(44,\)"):
        load_targets(tmp_path)
    names = labels()["name"]
    write(tmp_path, name=np.where(names == names[7], names[4], names))
    with pytest.raises(ValueError, match=r"labels.npz: image00002_0.jpg is listed 2 times"):
        load_targets(tmp_path)
    points = labels()["landmarks68"]
    points[2:4] = np.nan  # not visible, and without landmarks: allowed
    write(tmp_path, landmarks68=points)
    assert np.isfinite(load_targets(tmp_path).landmarks).all()
    points[9, 33, 1] = np.nan
    write(tmp_path, landmarks68=points)
    message = "labels.npz: .*image00004_1.jpg has a visible landmark that is not finite"
    with pytest.raises(ValueError, match=message):  # before, it counted as the corner
        load_targets(tmp_path)
    write(tmp_path)
    with pytest.raises(ValueError, match="part is 'test'; it must be one of all, train, held_out"):
        AflwCrops(tmp_path, "test")
    (tmp_path / "crops" / "image00003_1.jpg").unlink()
    for name in ("crops/image00003_1.jpg", "crops/stranger.jpg"):
        with pytest.raises(FileNotFoundError, match="no such crop"):
            AflwCrops(tmp_path).load(name)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("array", "place"), [("teacher_landmarks68", (7, 3, 2)), ("teacher_bfm62", 7)]
)
def test_a_crop_whose_teacher_labels_are_not_finite_is_left_out_alone(
    tmp_path, array, place, value
):
    """Before: "SVD did not converge in Linear Least Squares", without a name."""
    broken = labels()[array]
    broken[place] = value
    source = AflwCrops(write(tmp_path, **{array: broken}))
    targets, sound = load_targets(tmp_path), np.arange(COUNT) != 7
    np.testing.assert_array_equal(np.isfinite(targets.landmarks).all(axis=(1, 2)), sound)
    np.testing.assert_array_equal((targets.weight > 0).all(axis=1), sound)
    assert not targets.weight[7].any()
    names = source.names()
    assert np.isfinite(source.load(names[6]).landmarks).all()
    with pytest.raises(FileError, match=f"^{tmp_path / names[7]}: in labels.npz, its teacher_"):
        source.load(names[7])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"visibility68": np.ones((COUNT, 68))}, "visibility68 has the dtype float64; expected in"),
        ({"visibility68": np.ones((COUNT, 68), bool)}, "visibility68 has the dtype bool; expected"),
        ({"yaw_degrees": np.zeros(COUNT, complex)}, "yaw_degrees has the dtype complex128; expect"),
        ({n: a[:0] for n, a in labels().items()}, "lists no photo"),
    ],
)
def test_labels_of_a_wrong_type_or_none_are_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=rf"labels\.npz: .*{message}"):
        load_targets(write(tmp_path, **changes))


def test_the_real_crops_are_read(shared_data):
    source = AflwCrops(shared_data / "aflw")
    assert len(source.names()) == 19080
    photo = source.load(source.names()[100])
    assert photo.read_image().shape == (120, 120, 3)
    assert np.isfinite(photo.landmarks).all()
    assert 0.5 <= photo.weight.min() <= photo.weight.max() <= 1
