import cv2
import numpy as np
import pytest

from keras_scnn.evaluate import main
from keras_scnn.protocols import unseen_points
from keras_scnn.protocols.given_points import (
    evaluate_given_points,
    point_errors,
    read_points,
    shifted_to_annotated_sites,
)


@pytest.fixture
def labels(people, predictor):
    """The predicted landmarks of 32 photos, every other one moved by (3, 4) px; half are given."""
    paths = sorted(people.rglob("*.png"))
    for path in paths:
        kind = "frontal" if int(path.stem) < 2 else "profile"
        path.rename(path.with_name(f"{kind}_{path.stem}.png"))
    paths = sorted(people.rglob("*.png"))
    points = predictor(paths).landmarks[..., :2].copy()
    points[["profile" in path.name for path in paths]] += [3, 4]
    points[:, 34:] = np.nan
    names = np.array([path.relative_to(people).as_posix() for path in paths])
    np.savez(people / "labels.npz", name=names, landmarks68=points)
    return people / "labels.npz"


def test_errors_are_of_the_given_points_and_the_predicted_box(predictor, people, labels):
    result = evaluate_given_points(predictor, people, labels, resamples=5)
    assert result.values["frontal"]["error_percent"] == pytest.approx(0, abs=1e-3)
    names = np.load(labels, allow_pickle=False)["name"].tolist()
    outputs = predictor([people / name for name in names])
    sides = np.sqrt(np.ptp(outputs.landmarks[..., :2], axis=1).prod(axis=1))
    profile = np.array(
        ["profile" in str(name) for name in np.load(labels, allow_pickle=False)["name"]]
    )
    expected = (100 * 5 / sides[profile]).mean()  # every given point is 5 px away
    assert result.values["profile"]["error_percent"] == pytest.approx(expected, rel=1e-4)
    assert result.values["profile"]["offset_x_px"] == pytest.approx(-3, abs=1e-3)
    assert result.values["profile"]["offset_y_px"] == pytest.approx(-4, abs=1e-3)
    assert result.values["profile"]["coverage_percent"] == 100


def test_photos_that_are_only_numbered_are_of_one_kind(predictor, people, labels):
    """Each was a kind of its own, with seven rows of the table."""
    arrays = dict(np.load(labels, allow_pickle=False))
    names = [f"{name.rpartition('/')[0]}/{i:06d}.png" for i, name in enumerate(arrays["name"])]
    for old, new in zip(arrays["name"].tolist(), names, strict=True):
        (people / old).rename(people / new)
    np.savez(labels, **arrays | {"name": np.array(names)})
    result = evaluate_given_points(predictor, people, labels, resamples=0)
    assert list(result.values) == ["numbered"]
    assert result.notes[0].startswith("given points: 32 numbered photos of 8 people; ")


def test_a_photo_without_a_face_counts_only_in_the_coverage(predictor, people, labels):
    before = evaluate_given_points(predictor, people, labels, resamples=0).values
    lost = sorted(people.rglob("profile_*.png"))[5]
    cv2.imwrite(str(lost), np.zeros((48, 48, 3), np.uint8))
    result = evaluate_given_points(predictor, people, labels, resamples=0)
    assert result.values["profile"]["coverage_percent"] == pytest.approx(100 * 15 / 16)
    assert result.values["frontal"]["coverage_percent"] == 100
    assert result.values["profile"]["offset_y_px"] == pytest.approx(-4, abs=1e-3)
    assert result.values["frontal"]["error_percent"] == before["frontal"]["error_percent"]
    assert len(result.left_out) == 1 and lost.name in result.left_out[0]


def test_a_constant_offset_of_the_face_is_no_error_at_the_annotated_sites(
    predictor, people, labels
):
    arrays = dict(np.load(labels, allow_pickle=False))
    outputs = predictor([people / name for name in arrays["name"].tolist()])
    camera, offset = outputs.parameters.pose[:, :2, :3], np.array([2.0, -1.0, 3.0])
    points = outputs.landmarks[..., :2] + (camera @ offset)[:, None]
    points[:, 34:] = np.nan
    np.savez(labels, name=arrays["name"], landmarks68=points)
    values = evaluate_given_points(predictor, people, labels, resamples=0).values["profile"]
    assert values["annotated_sites_error_percent"] < 0.05 * values["error_percent"]
    assert values["error_percent"] > 1


def test_lower_lids_numbered_backwards_are_put_in_order(predictor, people, labels):
    arrays = dict(np.load(labels, allow_pickle=False))
    rng = np.random.default_rng(0)
    arrays["landmarks68"][:, 34:] = 20 + rng.normal(0, 4, (32, 34, 2))
    arrays["landmarks68"][:, 37:42] = [[20, 20], [24, 20], [28, 22], [24, 24], [20, 24]]
    arrays["landmarks68"][:, 42:48] = np.nan
    np.savez(labels, **arrays)
    before = evaluate_given_points(predictor, people, labels, resamples=0)
    assert not any("backwards" in note for note in before.notes)
    arrays["landmarks68"][:3, [40, 41]] = arrays["landmarks68"][:3, [41, 40]]
    np.savez(labels, **arrays)
    result = evaluate_given_points(predictor, people, labels, resamples=0)
    assert any("backwards in 3 photos: reordered" in note for note in result.notes)
    arrays["landmarks68"][:2, [40, 41]] = arrays["landmarks68"][:2, [41, 40]]
    np.savez(labels, **arrays)
    result = evaluate_given_points(predictor, people, labels, resamples=0)
    assert any("backwards in 1 photo: reordered" in note for note in result.notes)


def test_only_the_last_people_are_measured(predictor, people, labels):
    result = evaluate_given_points(predictor, people, labels, last=2, resamples=0)
    assert "4 frontal, 4 profile photos of 2 people" in result.notes[0]


def sites_of(rng: np.random.Generator, people: int):
    """Landmarks of four photos of each of some people, and where an annotation marks them."""
    person, pose = np.repeat(np.arange(people), 4), rng.normal(size=(4 * people, 3, 4))
    landmarks = rng.normal(0, 50, (len(person), 68, 3))
    offset = rng.normal(0, 3, (68, 3))
    given = landmarks[..., :2] + np.einsum("nij,kj->nki", pose[:, :2, :3], offset)
    given[:, 34:] = np.nan
    return landmarks, pose, given, person


def test_an_annotations_own_sites_are_found_from_other_people():
    landmarks, pose, given, person = sites_of(np.random.default_rng(0), people=12)
    given[person == 3] += 20  # a person of whom all points are elsewhere
    given[7, 0, 1] = np.nan  # a point of which only x is given is none
    before = landmarks.copy()
    moved = shifted_to_annotated_sites(landmarks, pose, given, person)
    np.testing.assert_array_equal(landmarks, before)
    errors = point_errors(np.concatenate([moved, landmarks[..., 2:]], axis=2), given)[0]
    assert errors[~np.isin(person, [3])].max() < 0.2 * errors[person == 3].min()
    np.testing.assert_array_equal(moved[:, 34:], before[:, 34:, :2])


def test_one_persons_own_points_do_not_move_the_landmarks_towards_them():
    landmarks, pose, given, person = sites_of(np.random.default_rng(0), people=2)
    other = given.copy()
    other[person == 0] += 30
    moved, same = (shifted_to_annotated_sites(landmarks, pose, g, person) for g in (given, other))
    np.testing.assert_array_equal(moved[person == 0], same[person == 0])
    assert np.abs(moved - same)[person == 1, :34].min() > 0
    alone = person == 0
    moved = shifted_to_annotated_sites(landmarks[alone], pose[alone], given[alone], person[alone])
    assert np.isnan(moved[:, :34]).all()


def test_of_one_person_the_error_at_the_annotated_sites_is_unknown(predictor, people, labels):
    result = evaluate_given_points(predictor, people, labels, last=1, resamples=0)
    assert np.isnan(result.values["profile"]["annotated_sites_error_percent"])
    assert result.values["profile"]["error_percent"] > 0


def test_missing_points_do_not_count():
    predicted = np.zeros((1, 68, 3))
    predicted[0, 0, :2] = 10, 40  # the box is 10 x 40 px, its root 20
    given = np.full((1, 68, 2), np.nan)
    given[0, 1], given[0, 2] = [0, 4], [0, -2]
    errors, offsets = point_errors(predicted, given)
    assert errors[0] == pytest.approx(100 * 3 / 20)
    np.testing.assert_allclose(offsets[0], [0, -1])


def test_damaged_labels_are_refused(people, labels):
    arrays = dict(np.load(labels, allow_pickle=False))
    with pytest.raises(FileNotFoundError, match=r"no.npz: no such file"):
        read_points(people / "no.npz")
    np.savez(labels, name=arrays["name"])
    with pytest.raises(ValueError, match="not an .npz file with name"):
        read_points(labels)
    np.savez(labels, name=arrays["name"], landmarks68=arrays["landmarks68"][:, :67])
    with pytest.raises(ValueError, match=r"landmarks68 \(32, 67, 2\)"):
        read_points(labels)
    for odd in (np.inf, np.nan):
        changed = arrays["landmarks68"].copy()
        changed[5, 8, 1] = odd
        np.savez(labels, name=arrays["name"], landmarks68=changed)
        with pytest.raises(ValueError, match=r"_1.png has a point that is neither two finite num"):
            read_points(labels)
    np.savez(labels, **arrays | {"name": arrays["name"][[0, 1, 2, 1, *range(4, 32)]]})
    with pytest.raises(ValueError, match=r"_1.png is in 'name' more than once"):
        read_points(labels)
    respelled = np.array([*arrays["name"][:3], f"./{arrays['name'][1]}", *arrays["name"][4:]])
    np.savez(labels, **arrays | {"name": respelled})
    with pytest.raises(ValueError, match=r"_1.png is in 'name' more than once"):
        read_points(labels)
    arrays["landmarks68"][3, 2:] = np.nan
    np.savez(labels, **arrays)
    with pytest.raises(ValueError, match="has 2 points; 4 needed"):
        read_points(labels)


def test_the_command_measures_points(predictor, people, labels, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "keras_scnn.protocols.choices.PhotoPredictor.from_preset", lambda name, out: predictor
    )
    command = ["mobile", "--data", str(people), "--points", str(labels), "--last", "3"]
    assert main([*command, "--out", str(tmp_path / "out"), "--resamples", "3"]) == 0
    assert "profile: given points, error" in capsys.readouterr().out
    assert main([*command, "--openings", str(labels)]) == 2
    assert "--openings and --points do not go together" in capsys.readouterr().err


def test_shapes_are_those_of_the_persons_frontal_photos(predictor, people, labels, monkeypatch):
    seen = {}

    def noted(model, identity, person, view, points):
        seen.update(identity=identity, person=person, view=view)
        return unseen_points.measure_misfits(model, identity, person, view, points)

    monkeypatch.setattr("keras_scnn.protocols.given_points.measure_misfits", noted)
    result = evaluate_given_points(predictor, people, labels, resamples=0)
    names = np.load(labels, allow_pickle=False)["name"].tolist()
    folders = sorted({name.rsplit("/", 1)[0] for name in names})
    predicted = predictor([people / name for name in names]).parameters.identity
    for name, number, view in zip(names, seen["person"], seen["view"], strict=True):
        frontal = [n.startswith(f"{folders[number]}/frontal") for n in names]
        expected = predicted[frontal].mean(axis=0)
        np.testing.assert_allclose(seen["identity"][number], expected, atol=1e-5)
        assert name.startswith(f"{folders[number]}/{view.split()[0]}")
    assert any("people's frontal photos" in note for note in result.notes)


def test_a_person_without_a_predicted_shape_explains_nothing(
    predictor, people, labels, monkeypatch
):
    """The people folder's p0 has two frontal photos; in neither a face is found."""
    seen = {}

    def noted(model, identity, person, view, points):
        seen.update(person=person)
        return unseen_points.measure_misfits(model, identity, person, view, points)

    monkeypatch.setattr("keras_scnn.protocols.given_points.measure_misfits", noted)
    for path in (people / "people" / "p0").glob("frontal_*.png"):
        cv2.imwrite(str(path), np.zeros((48, 48, 3), np.uint8))
    evaluate_given_points(predictor, people, labels, resamples=0)
    names = np.load(labels, allow_pickle=False)["name"]
    is_first = np.array(["/p0/" in str(name) for name in names])
    np.testing.assert_array_equal(seen["person"] == -1, is_first)
    assert set(seen["person"][~is_first]) == set(range(1, 8))


def test_the_jaws_ends_tell_which_half_of_a_face_is_given(predictor, people, labels, monkeypatch):
    """Landmark 0 is the right ear's end of the jaw, 16 the left one's (iBUG's order)."""
    views = []

    def noted(model, identity, person, view, points):
        views.extend(view.tolist())
        return unseen_points.measure_misfits(model, identity, person, view, points)

    monkeypatch.setattr("keras_scnn.protocols.given_points.measure_misfits", noted)
    arrays = dict(np.load(labels, allow_pickle=False))
    points = arrays["landmarks68"]
    points[:, [*range(1, 16), 17]] = np.nan
    points[::2, 0], points[1::2, 16] = np.nan, np.nan
    np.savez(labels, name=arrays["name"], landmarks68=points)
    evaluate_given_points(predictor, people, labels, resamples=0)
    for view, other in zip(views[::2], views[1::2], strict=True):
        assert view.split()[0] == other.split()[0] and view != other
    assert len(set(views)) == 4  # two kinds, two halves
