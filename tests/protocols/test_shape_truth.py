import dataclasses
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from keras_scnn.data.sources.people import PeopleFolder, PersonLabels
from keras_scnn.evaluate import main
from keras_scnn.fitting import fit_landmarks
from keras_scnn.geometry.camera import compose, project
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.photos.cropping import box_from_landmarks
from keras_scnn.protocols import shape_truth
from keras_scnn.protocols.shape_agreement import _predicted_deviations, evaluate_shapes
from keras_scnn.protocols.shape_truth import (
    fit_truth,
    last_people,
    load_truth,
    save_truth,
)
from keras_scnn.storage.shards import Failures

PEOPLE, PHOTOS = 4, 6


@dataclasses.dataclass
class Photo:
    name: str
    landmarks: np.ndarray


class Source:
    """People whose landmarks are exact projections of known shapes."""

    def __init__(self, model, folder):
        rng = np.random.default_rng(5)
        self.folder = folder
        self.face_model, self.identity = model, 0.4 * rng.normal(size=(PEOPLE + 1, 6))
        self.photos: dict[str, list[Photo]] = {}
        self.yaw: list[float] = []
        for p in range(PEOPLE + 1):
            count = 2 if p == PEOPLE else PHOTOS  # the last one has too few photos
            self.photos[f"p{p}"] = [self._photo(folder, p, k, rng) for k in range(count)]

    def _photo(self, folder, p, k, rng) -> Photo:
        self.yaw.append(rng.uniform(-0.6, 0.6))
        rotation = rotation_from_euler(np.array([0.1, self.yaw[-1], 0.0]))
        pose = compose(rotation, np.float64(1.0), np.array([100.0, 100.0, 0.0]))
        points = project(pose, self.face_model.landmarks(self.identity[p]))
        (folder / f"p{p}").mkdir(parents=True, exist_ok=True)
        color = np.full((48, 48, 3), [40 + 40 * p, 100 + k, 60], np.uint8)
        cv2.imwrite(str(folder / f"p{p}" / f"{k}.png"), color)
        return Photo(f"p{p}/{k}.png", points)

    def names(self):
        return [photo.name for photos in self.photos.values() for photo in photos]

    def person(self, name):
        return name.split("/")[0]

    def people(self):
        return sorted(self.photos)

    def label(self, person):
        left_out = Failures()
        if person == "p0":
            left_out["p0/wall.png"] = f"{self.folder / 'p0' / 'wall.png'}: no face found"
        return PersonLabels(self.photos[person], left_out)


@pytest.fixture
def source(tiny_face_model, tmp_path, monkeypatch):
    made = Source(tiny_face_model, tmp_path / "people")
    monkeypatch.setattr(shape_truth, "PeopleFolder", lambda folder, teacher: made)
    return made


@pytest.fixture
def truth(source, tmp_path):
    return fit_truth(tmp_path / "people")


class KnowingPredictor:
    """Predicts the true shapes of the people, ``scale`` times as large."""

    def __init__(self, predictor, source, scale):
        self.preset, self._predictor = predictor.preset, predictor
        self._identity, self._scale = source.identity, scale

    def __call__(self, paths):
        outputs = self._predictor(paths)
        rows = [int(paths[i].parent.name[1:]) for i in outputs.kept]
        identity = np.float32(self._scale * self._identity[rows])
        parameters = dataclasses.replace(outputs.parameters, identity=identity)
        return dataclasses.replace(outputs, parameters=parameters)


def test_the_truth_of_a_photo_is_the_fit_to_the_others(source, truth, tiny_face_model):
    assert truth.photo.tolist() == [f"p{p}/{k}.png" for p in range(PEOPLE) for k in range(PHOTOS)]
    rows = np.repeat(np.arange(PEOPLE), PHOTOS)
    shapes = truth.deviations(truth.of_others)
    expected = tiny_face_model.vertices(source.identity[rows]) - tiny_face_model.mean
    flat = expected.reshape(len(rows), -1) / np.sqrt(tiny_face_model.n_vertices)
    # A prior shrinks the fit a little: the landmarks are exact, so it is near the known shape.
    distance = np.linalg.norm(shapes - flat, axis=1)
    assert distance.max() < 0.35 * np.linalg.norm(flat, axis=1).min()
    assert np.bincount(truth.half).tolist() == [PEOPLE * PHOTOS / 2] * 2
    np.testing.assert_array_equal(truth.of_own_half[0], truth.of_own_half[2])
    np.testing.assert_array_equal(truth.of_own_half[0], truth.of_other_half[1])
    np.testing.assert_allclose(truth.yaw_degrees, np.degrees(source.yaw)[: len(rows)], atol=2)


def test_a_photo_does_not_see_its_own_landmarks(source, truth, tmp_path):
    """Moved landmarks of one photo change the truth of the others, never its own."""
    first = source.photos["p0"][0]
    source.photos["p0"][0] = dataclasses.replace(
        first, landmarks=first.landmarks + 3.0 * (np.arange(68) % 2)[:, None]
    )
    moved = fit_truth(tmp_path / "people")
    np.testing.assert_allclose(moved.of_others[0], truth.of_others[0], atol=1e-6)
    assert np.abs(moved.of_others[1] - truth.of_others[1]).max() > 1e-3


def test_the_truth_is_explained_by_itself_and_not_by_a_constant(predictor, source, truth, tmp_path):
    result = evaluate_shapes(
        KnowingPredictor(predictor, source, 1.0), tmp_path / "people", truth, resamples=5
    )
    assert result.values["network"].r2 > 0.9
    assert result.values["explained"]["network"] > 0.8
    assert result.values["halves"].r2 > 0.9
    assert result.values["coverage_percent"] == 100
    assert {path for path, _, _ in result.rows} <= set(result.intervals)
    nothing = evaluate_shapes(
        KnowingPredictor(predictor, source, 0.0), tmp_path / "people", truth, resamples=0
    )
    assert nothing.values["network"].r2 == pytest.approx(0, abs=1e-6)
    assert nothing.values["explained"]["network"] == pytest.approx(0, abs=1e-6)
    assert nothing.values["explained"]["network_centered"] == pytest.approx(0, abs=1e-6)
    explained = nothing.values["explained"]
    assert explained["network_at_constant"] == pytest.approx(explained["constant"], abs=1e-6)


def test_a_shape_is_measured_only_on_the_persons_other_photos(
    predictor, source, truth, tmp_path, monkeypatch
):
    asked, misfit = [], shape_truth.ShapeTruth.misfit

    def recorded(self, shape, photos):
        asked.append(photos.tolist())
        return misfit(self, shape, photos)

    monkeypatch.setattr(shape_truth.ShapeTruth, "misfit", recorded)
    knowing = KnowingPredictor(predictor, source, 1.0)
    evaluate_shapes(knowing, tmp_path / "people", truth, resamples=0)
    everybody = np.arange(PEOPLE * PHOTOS).reshape(PEOPLE, PHOTOS).tolist()
    others = [[p for p in person if p != i] for person in everybody for i in person]
    for expected in others:
        assert asked.count(expected) == 2  # the prediction, and without the means


@pytest.mark.parametrize("lost", [[0], [1, 2], [0, 1, 2, 3, 4, 5]])
def test_the_bound_of_halves_does_not_depend_on_found_faces(
    predictor, source, truth, tmp_path, lost
):
    """All photos count, also those without a prediction; 0 and 1 are the first of their halves."""
    for i in lost:
        cv2.imwrite(str(tmp_path / "people" / truth.photo[i]), np.zeros((48, 48, 3), np.uint8))
    truth = dataclasses.replace(truth, of_other_half=0.5 * truth.of_other_half)  # so it is not 1
    result = evaluate_shapes(
        KnowingPredictor(predictor, source, 0.7), tmp_path / "people", truth, resamples=0
    )
    assert result.values["coverage_percent"] == pytest.approx(100 * (1 - len(lost) / 24))
    sums = np.zeros(3)
    best = truth.deviations68(truth.of_others.mean(axis=0)[None])[0]
    for i, shape in enumerate(truth.deviations68(truth.of_other_half)):
        sums += [truth.misfit(truth.mean68 + one, [i])[0] for one in (shape, 0, best)]
    explained = result.values["explained"]
    assert explained["halves"] == pytest.approx(1 - sums[0] / sums[1], rel=1e-4)
    assert explained["halves_centered"] == pytest.approx(1 - sums[0] / sums[2], rel=1e-4)


def test_a_resample_of_people_without_a_found_face_has_no_numbers(
    predictor, source, truth, tmp_path
):
    """Three of four people are not found: 3 of 10 resamples have nobody else."""
    for photo in truth.photo[PHOTOS:]:
        cv2.imwrite(str(tmp_path / "people" / photo), np.zeros((48, 48, 3), np.uint8))
    knowing = KnowingPredictor(predictor, source, 0.7)
    result = evaluate_shapes(knowing, tmp_path / "people", truth, resamples=20)
    assert result.intervals["coverage_percent"][0] == 0
    for name in ("explained.network", "size.from_mean_face_mm", "explained.halves"):
        assert np.isfinite(result.intervals[name]).all(), name


def test_a_single_found_face_is_too_few(predictor, source, truth, tmp_path):
    for photo in truth.photo[1:]:
        cv2.imwrite(str(tmp_path / "people" / photo), np.zeros((48, 48, 3), np.uint8))
    message = (
        "people: one of 24 photos shows a face, and two are needed; the first without: .*1.png"
    )
    with pytest.raises(ValueError, match=message):
        evaluate_shapes(predictor, tmp_path / "people", truth, resamples=0)


def test_half_of_the_spread_is_seen(predictor, source, truth, tmp_path):
    half, whole = (
        evaluate_shapes(KnowingPredictor(predictor, source, scale), tmp_path / "people", truth, 0)
        for scale in (0.5, 1.0)
    )
    assert half.values["network"].spread == pytest.approx(0.5 * whole.values["network"].spread)
    one, other = (each.values["size"]["network_mm"] for each in (half, whole))
    assert one == pytest.approx(other / 2, rel=1e-4)


def test_sizes_are_medians_about_the_mean_face_and_about_the_mean_of_all(
    predictor, source, truth, tmp_path
):
    knowing = KnowingPredictor(predictor, source, 0.7)
    sizes = evaluate_shapes(knowing, tmp_path / "people", truth, resamples=0).values["size"]
    model, rows = source.face_model, np.repeat(np.arange(PEOPLE), PHOTOS)
    predicted = model.vertices(0.7 * source.identity[rows]) - model.mean
    true = np.einsum("njk,mk->mnj", truth.basis, truth.of_others)

    def median(shapes: np.ndarray) -> float:
        """The median of the root mean square lengths of vertices, mm."""
        return np.median(np.sqrt((shapes**2).sum(axis=-1).mean(axis=-1)))

    expected = {
        "from_mean_face_mm": median(predicted),
        "network_mm": median(predicted - predicted.mean(axis=0)),
        "truth_mm": median(true - true.mean(axis=0)),
    }
    assert sizes == pytest.approx(expected, rel=1e-4)


def test_a_constant_in_all_predictions_counts_only_where_means_are_left_on(
    predictor, source, truth, tmp_path
):
    knowing = KnowingPredictor(predictor, source, 0.7)
    plain = evaluate_shapes(knowing, tmp_path / "people", truth, resamples=0).values
    knowing._identity = source.identity + np.float64([0.5, -0.4, 0.3, 0, 0, 0.2])
    moved = evaluate_shapes(knowing, tmp_path / "people", truth, resamples=0).values
    for name in ("network_centered", "network_at_constant"):
        assert moved["explained"][name] == pytest.approx(plain["explained"][name], abs=1e-4)
    assert moved["explained"]["network"] < plain["explained"]["network"] - 0.05
    assert moved["network"].r2 == pytest.approx(plain["network"].r2, abs=1e-4)


def test_photos_without_a_truth_are_listed(predictor, source, truth, tmp_path):
    few = "its person has 2 good photos; 5 are needed"
    assert truth.left_out.tolist() == [
        "p0/wall.png: no face found", f"p4/0.png: {few}", f"p4/1.png: {few}"
    ]  # fmt: skip
    people = tmp_path / "people"
    result = evaluate_shapes(KnowingPredictor(predictor, source, 1.0), people, truth, resamples=0)
    assert result.left_out[:2] == (
        f"{people}/p0/wall.png: no face found", f"{people}/p4/0.png: {few}"
    )  # fmt: skip
    save_truth(tmp_path / "truth.npz", truth)
    arrays = dict(np.load(tmp_path / "truth.npz", allow_pickle=False))
    del arrays["left_out"]
    np.savez(tmp_path / "of_02.npz", **arrays)
    assert load_truth(tmp_path / "of_02.npz").left_out.tolist() == []


def test_a_photo_that_this_machine_cannot_read_is_an_error(source, tmp_path, monkeypatch):
    """A stored truth would lack it for good, although it may be readable later."""
    label = source.label

    def lacking(person):
        labels = label(person)
        if person == "p1":
            path = str(tmp_path / "people" / "p1" / "9.png")
            labels.left_out.note("p1/9.png", PermissionError(13, "Permission denied", path))
        return labels

    monkeypatch.setattr(source, "label", lacking)
    with pytest.raises(OSError, match=r"p1/9.png: .*Permission denied.*; the truth would lack"):
        fit_truth(tmp_path / "people")


def test_five_photos_of_a_person_are_enough_and_four_are_not(source, tmp_path):
    source.photos["p1"] = source.photos["p1"][:5]
    source.photos["p2"] = source.photos["p2"][:4]
    truth = fit_truth(tmp_path / "people", 4)
    names, counts = np.unique(truth.person, return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {"p1": 5, "p3": 6}
    assert sum("p2/" in one and "has 4 good photos" in one for one in truth.left_out) == 4


def test_people_with_too_few_photos_are_refused_before_any_is_labeled(
    source, tmp_path, monkeypatch
):
    for person in ("p1", "p2", "p3"):
        source.photos[person] = source.photos[person][:4]
    monkeypatch.setattr(Source, "label", lambda *_: pytest.fail("labeled"))
    with pytest.raises(ValueError, match="people: at most 1 person with 5 good photos; 2 needed"):
        fit_truth(tmp_path / "people")
    with pytest.raises(ValueError, match="people: at most 0 people with 5 good photos; 2 needed"):
        fit_truth(tmp_path / "people", 4)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("of_others", np.nan, "'of_others' must hold finite numbers"),
        ("mean", np.inf, "'mean' must hold finite numbers"),
        ("yaw_degrees", np.nan, "'yaw_degrees' must hold finite numbers"),
        ("half", 2, "'half' must be whole numbers from 0 to 1"),
        ("indices68", -1, "'indices68' must be whole numbers from 0 to 69"),
        ("indices68", 70, "'indices68' must be whole numbers from 0 to 69"),
    ],
)
def test_a_truth_with_impossible_numbers_is_refused(truth, tmp_path, name, value, message):
    """When it is read, and not after all photos were predicted."""
    array = getattr(truth, name).copy()
    array.flat[3] = value
    save_truth(tmp_path / "bad.npz", dataclasses.replace(truth, **{name: array}))
    with pytest.raises(ValueError, match=f"bad.npz: damaged: {message}"):
        load_truth(tmp_path / "bad.npz")
    if name == "half":
        save_truth(tmp_path / "bad.npz", dataclasses.replace(truth, half=truth.half / 1.0))
        with pytest.raises(ValueError, match=f"bad.npz: damaged: {message}"):
            load_truth(tmp_path / "bad.npz")


def test_a_misfit_is_the_mean_square_of_the_distances_in_percent_of_the_crop(source, truth):
    """The whole face model with the same shape, fitted to each photo alone, has these distances."""
    identity, photos = source.identity[2], [0, 7, 20]  # of others
    model = source.face_model.truncated(0, source.face_model.n_expression)
    model = model.replace(mean=source.face_model.vertices(identity))
    expected = []
    for points in truth.landmarks[photos, :, :2].astype(np.float64):
        fit = fit_landmarks(model, points[None], options=shape_truth.TRUTH_FIT)
        square = ((fit.landmarks[0, :, :2] - points) ** 2).sum(axis=1).mean()
        expected.append(1e4 * square / box_from_landmarks(points).width ** 2)
    shape = source.face_model.landmarks(identity)
    np.testing.assert_allclose(truth.misfit(shape, np.array(photos)), expected, rtol=0.02)


def test_a_misfit_is_in_the_image_and_a_share_of_the_crop(truth):
    """The stored depth has no part in it, nor has the size of the photo."""
    shape, every = truth.mean68 + truth.deviations68(truth.of_others[:1])[0], np.arange(8)
    expected = truth.misfit(shape, every)
    assert expected.min() > 0
    other = truth.landmarks.copy()
    other[..., 2] = np.random.default_rng(0).normal(0, 90, other.shape[:2])
    np.testing.assert_allclose(
        dataclasses.replace(truth, landmarks=other).misfit(shape, every), expected, rtol=1e-6
    )
    larger = dataclasses.replace(truth, landmarks=3 * truth.landmarks)
    np.testing.assert_allclose(larger.misfit(shape, every), expected, rtol=0.02)


def test_a_file_of_truths_stays_as_it_is(truth, tmp_path):
    save_truth(tmp_path / "deep" / "truth.npz", truth)
    again = load_truth(tmp_path / "deep" / "truth.npz")
    for field in dataclasses.fields(truth):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(truth, field.name))
    with pytest.raises(FileNotFoundError, match="--fit-truth fits and stores it"):
        load_truth(tmp_path / "no.npz")
    with pytest.raises(IsADirectoryError, match="deep: is a folder; expected a shape truth"):
        load_truth(tmp_path / "deep")
    save_truth(tmp_path / "bad.npz", dataclasses.replace(truth, half=truth.half[:-1]))
    with pytest.raises(ValueError, match="damaged: 'half'"):
        load_truth(tmp_path / "bad.npz")


def test_a_truth_of_more_vertices_is_refused(predictor, truth, tmp_path):
    more = [np.concatenate([part, part[-1:]]) for part in (truth.mean, truth.basis)]
    other = dataclasses.replace(truth, mean=more[0], basis=more[1])
    with pytest.raises(ValueError, match="has 70 vertices, the truth 71: they cannot be compared$"):
        evaluate_shapes(predictor, tmp_path / "people", other)


def test_a_truth_of_another_mesh_is_refused_before_photos_are_read(truth, tmp_path, open_face):
    """A mesh with more vertices is another one, unless the truth's vertices are its first ones."""

    class Predictor:
        preset = SimpleNamespace(face_model=open_face)

        def __call__(self, paths):
            pytest.fail("photos are read")

    message = r"'open_face' \(3716 vertices\) has its landmarks at other .* truth \(70 vertices\): "
    with pytest.raises(ValueError, match=message):
        evaluate_shapes(Predictor(), tmp_path / "people", truth)
    shape_truth.check_comparable(open_face, 3000, open_face.landmark_indices)


def test_a_truth_for_a_preset_of_fewer_vertices_is_refused_before_it_is_fitted(
    predictor, open_face, tmp_path, capsys, monkeypatch
):
    (tmp_path / "people" / "a").mkdir(parents=True)
    (tmp_path / "people" / "a" / "1.png").touch()
    monkeypatch.setattr(PeopleFolder, "face_model", open_face)
    monkeypatch.setattr(PeopleFolder, "people", lambda _: pytest.fail("people are fitted"))
    monkeypatch.setattr(
        "keras_scnn.protocols.choices.PhotoPredictor.from_preset", lambda name, out: predictor
    )
    command = ["mobile", "--data", str(tmp_path / "people"), "--out", str(tmp_path / "out")]
    assert main([*command, "--shape-truth", str(tmp_path / "new.npz"), "--fit-truth"]) == 2
    assert "'tiny' has 70 vertices, the truth 3716" in capsys.readouterr().err


def test_a_truth_of_fewer_vertices_is_of_the_models_first_ones(tiny_face_model):
    rng, count = np.random.default_rng(0), tiny_face_model.n_vertices - 9
    identity = rng.normal(size=(3, tiny_face_model.n_identity))
    outputs = SimpleNamespace(
        face_model=tiny_face_model, parameters=SimpleNamespace(identity=identity)
    )
    moved = tiny_face_model.vertices(identity) - tiny_face_model.mean
    expected = moved[:, :count].reshape(3, -1) / np.sqrt(count)
    np.testing.assert_allclose(_predicted_deviations(outputs, count), expected, atol=1e-5)


def test_the_last_people_are_chosen(source, tmp_path):
    assert last_people(["a", "b", "c"], 2) == ["b", "c"]
    assert last_people(["a", "b"], None) == ["a", "b"]
    assert last_people(["a", "b"], 2) == ["a", "b"]
    for last in (3, 0, -1):
        with pytest.raises(ValueError, match=f"--last is {last}; there are 2 people"):
            last_people(["a", "b"], last)
    assert set(fit_truth(tmp_path / "people", 3).person) == {"p2", "p3"}
    with pytest.raises(ValueError, match="1 person with 5 good photos"):
        fit_truth(tmp_path / "people", 2)


def test_the_command_fits_the_truth_once(predictor, source, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "keras_scnn.protocols.choices.PhotoPredictor.from_preset", lambda name, out: predictor
    )
    file, out = tmp_path / "truth.npz", tmp_path / "out"
    command = ["mobile", "--data", str(tmp_path / "people"), "--out", str(out), "--resamples", "5"]
    assert main([*command, "--shape-truth", str(file)]) == 2
    assert "--fit-truth fits and stores it" in capsys.readouterr().err
    assert main([*command, "--shape-truth", str(file), "--fit-truth"]) == 0
    assert "R2, both means off: prediction" in capsys.readouterr().out
    stored = file.read_bytes()
    source.photos.clear()  # nothing is fitted again
    assert main([*command, "--shape-truth", str(file), "--fit-truth"]) == 0
    assert file.read_bytes() == stored
    assert main([*command, "--fit-truth"]) == 2
    assert "--fit-truth is for --shape-truth" in capsys.readouterr().err
