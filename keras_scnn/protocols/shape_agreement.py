"""The shape from one photo against the fit to that person's others; see ``shape_truth``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from keras_scnn.evaluation import with_intervals
from keras_scnn.evaluation.agreement import AGREEMENT_YAW_BINS_DEGREES, AgreementEvaluator
from keras_scnn.evaluation.bootstrap import RESAMPLES, weighted_mean
from keras_scnn.evaluation.report import Row
from keras_scnn.protocols.photo_predictions import PhotoPredictions, PhotoPredictor
from keras_scnn.protocols.shape_truth import ShapeTruth, check_comparable
from keras_scnn.protocols.yardsticks import Yardstick, bootstrap_note
from keras_scnn.storage.text import counted

NAMES = {"network": "prediction", "halves": "bound, the person's other half of photos"}


def evaluate_shapes(
    predictor: PhotoPredictor,
    folder: str | os.PathLike,
    truth: ShapeTruth,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Yardstick:
    """The neutral shape from one photo against the fit to all other photos of the person.

    Args:
        predictor: of the preset.
        folder: the people folder with the photos that the truth lists.
        truth: the fitted reference shapes.
        resamples, seed: of the bootstrap over people.

    Raises:
        FileNotFoundError: a photo of the truth is missing.
        ValueError: fewer than two photos show a face; or the preset's face model has fewer vertices
            than the truth, or another mesh. (It may have more: the open one has the vertices of its
            tongue after all others.)
    """
    check_comparable(predictor.preset.face_model, len(truth.mean), truth.indices68)
    predictions = predictor([Path(folder) / str(photo) for photo in truth.photo])
    kept, constant = predictions.kept, truth.of_others.mean(axis=0)
    if len(kept) < 2:
        without = "".join(f"; the first without: {why}" for why in predictions.left_out[:1])
        photos = counted(len(truth.photo), "photo")
        raise ValueError(f"{folder}: one of {photos} shows a face, and two are needed{without}")
    dense = _predicted_deviations(predictions, len(truth.mean))
    yaw = truth.yaw_degrees
    of_others, own, other = (
        truth.deviations(c) for c in (truth.of_others, truth.of_own_half, truth.of_other_half)
    )
    network = AgreementEvaluator(dense, of_others[kept], yaw[kept])
    halves = AgreementEvaluator(other, own, yaw)
    misfits, is_found = _misfits(truth, predictions, constant), predictions.position >= 0

    def summary(weights: np.ndarray) -> dict:
        """All numbers; ``weights`` (n,) is how often each photo counts."""
        return {
            "coverage_percent": 100 * weighted_mean(is_found, weights),
            "network": network.summary(weights[kept]),
            "halves": halves.summary(weights),
            "explained": _explained(misfits, weights),
            "size": {
                "from_mean_face_mm": _size(dense, weights[kept]),
                "network_mm": _size(dense - _mean(dense, weights[kept]), weights[kept]),
                "truth_mm": _size(of_others - _mean(of_others, weights), weights),
            },
        }

    values, intervals = with_intervals(summary, truth.person, resamples, seed)
    no_truth = [os.path.join(folder, reason) for reason in truth.left_out.tolist()]
    left_out = (*no_truth, *predictions.left_out)
    return Yardstick(values, ROWS, intervals, _notes(truth, resamples), left_out)


def _predicted_deviations(predictions: PhotoPredictions, count: int) -> np.ndarray:
    """(n, 3N) as ``ShapeTruth.deviations``: neutral vertices minus the preset's mean face."""
    basis = predictions.face_model.identity_basis[:count]
    flat = basis.reshape(-1, basis.shape[-1]).astype(np.float64)
    return predictions.parameters.identity @ flat.T / np.sqrt(count)


def _misfits(truth: ShapeTruth, predictions: PhotoPredictions, constant: np.ndarray) -> dict:
    """Sums of squared misfits, (n,) each, of shapes to photos that they were not made from.

    'network' and 'mean_face' are over the person's other photos; so are 'network_centered', where
    the best constant replaces the mean of the predictions, and 'constant', where it replaces the
    mean face; all are NaN without a prediction. 'halves', 'halves_mean_face' and 'halves_constant'
    are for each photo itself: the fit to the other half of the person's photos, the mean face and
    the constant.
    """
    predicted = (
        predictions.face_model.landmarks(predictions.parameters.identity)
        - predictions.face_model.landmarks()
    )
    best = truth.deviations68(constant[None])[0]
    shapes = np.full((len(truth.photo), 68, 3), np.nan)
    shapes[predictions.kept] = predicted
    centered = shapes - np.nanmean(shapes, axis=0) + best
    every = np.arange(len(truth.photo))
    fixed = {
        name: truth.misfit(truth.mean68 + shape, every)
        for name, shape in (("mean_face", 0), ("constant", best))
    }
    names = ("network", "network_centered", *fixed)
    sums = {name: np.full(len(every), np.nan) for name in names}
    for i in tqdm(predictions.kept, desc="fitting photos", leave=False, delay=1):
        rest = every[(truth.person == truth.person[i]) & (every != i)]
        sums["network"][i] = truth.misfit(truth.mean68 + shapes[i], rest).sum()
        sums["network_centered"][i] = truth.misfit(truth.mean68 + centered[i], rest).sum()
        for name in fixed:
            sums[name][i] = fixed[name][rest].sum()
    bounds = {f"halves_{name}": misfit for name, misfit in fixed.items()}
    return sums | bounds | {"halves": _misfit_of_halves(truth)}


def _misfit_of_halves(truth: ShapeTruth) -> np.ndarray:
    """(n,) squared misfit of each photo to the fit to the person's other half of photos."""
    misfit = np.empty(len(truth.photo))
    for person, part in sorted(set(zip(truth.person, truth.half, strict=True))):
        half = np.flatnonzero((truth.person == person) & (truth.half == part))
        # One shape for the whole half; it needs no prediction, and so no detected face.
        shape = truth.deviations68(truth.of_other_half[half[:1]])[0]
        misfit[half] = truth.misfit(truth.mean68 + shape, half)
    return misfit


def _explained(misfits: dict[str, np.ndarray], weights: np.ndarray) -> dict[str, float]:
    """Shares of the squared landmark misfit that shapes explain; the baseline has 0.

    NaN if no photo with that misfit has a weight above 0.
    """
    total = {name: float(np.nansum(weights * each)) for name, each in misfits.items()}

    def share(name: str, baseline: str) -> float:
        return 1 - total[name] / (total[baseline] or np.nan)

    return {
        "network": share("network", "mean_face"),
        "network_at_constant": share("network_centered", "mean_face"),
        "network_centered": share("network_centered", "constant"),
        "constant": share("constant", "mean_face"),
        "halves": share("halves", "halves_mean_face"),
        "halves_centered": share("halves", "halves_constant"),
    }


def _mean(deviations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ deviations / (weights.sum() or np.nan)


def _size(deviations: np.ndarray, weights: np.ndarray) -> float:
    """Median length of deviations, mm; photos of weight 2 count twice."""
    repeated = np.repeat(np.linalg.norm(deviations, axis=1), weights.astype(int))
    return float(np.median(repeated)) if len(repeated) else float("nan")


def _agreement_rows(name: str) -> list[Row]:
    label = NAMES[name]
    bins = list(enumerate(AGREEMENT_YAW_BINS_DEGREES))
    return [
        (f"{name}.r2", f"R2, both means off: {label}", ""),
        *((f"{name}.bins_r2.{i}", f"  the same, |yaw| {a}-{b}", "") for i, (a, b) in bins),
        (f"{name}.correlation", f"correlation: {label}", ""),
        (f"{name}.spread", f"spread, predicted / true: {label}", ""),
        *((f"{name}.bins_spread.{i}", f"  the same, |yaw| {a}-{b}", "") for i, (a, b) in bins),
        (f"{name}.error_mm", f"error, both means off: {label}", "mm"),
    ]


ROWS: tuple[Row, ...] = (
    ("coverage_percent", "photos in which a face was found", "%"),
    *(row for name in NAMES for row in _agreement_rows(name)),
    ("network.true_spread_mm", "error of the best constant: spread of the true shapes", "mm"),
    ("size.from_mean_face_mm", "size: predicted shape from the mean face, median", "mm"),
    ("size.network_mm", "size: predicted shape from the mean of all, median", "mm"),
    ("size.truth_mm", "size: true shape from the mean of all, median", "mm"),
    ("explained.network", "landmarks of the other photos explained, over the mean face", ""),
    ("explained.constant", "  the same, best constant", ""),
    ("explained.network_at_constant", "  the same, prediction about the best constant", ""),
    ("explained.halves", "  the same, bound: the person's other half of photos", ""),
    ("explained.network_centered", "  explained, both means off, over the best constant", ""),
    ("explained.halves_centered", "  the same, bound: the person's other half of photos", ""),
)


def _notes(truth: ShapeTruth, resamples: int) -> tuple[str, ...]:
    people = len(np.unique(truth.person))
    return (
        f"shape truth: {len(truth.photo)} photos of {people} people; each photo's neutral shape "
        "against the fit to all other photos of the person, RMS over all vertices",
        "baselines: any constant has R2 0 and spread 0; the mean face explains 0",
        "explained: 1 - squared misfit / that of the mean face, pose and expression fitted to each "
        "of the person's other photos",
        *bootstrap_note(resamples),
    )
