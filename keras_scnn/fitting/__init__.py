"""Fit a MorphableModel to landmarks: one photo, or all photos of one person together.

Levenberg-Marquardt on the scaled orthographic camera and the coefficients jointly, for a batch of
photos. Coefficients have Gaussian priors (Blanz and Vetter 1999); expression weights stay within
the model's bounds, which constrain each step. Photos of one person share their identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_scnn.fitting.solver import LandmarkSolver
from keras_scnn.geometry.camera import compose, project
from keras_scnn.geometry.landmarks68 import on_one_line
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters
from keras_scnn.settings import check_above, check_at_least, whole
from keras_scnn.storage.one_thread import ONE_BLAS_THREAD

CHUNK = 256
PARTS = ("pose", "identity", "expression")


@dataclass(frozen=True)
class FitOptions:
    """Noise, priors and stopping criteria of a fit.

    Attributes:
        noise_mm: standard deviation of a landmark's error, in mm on the face.
        depth_noise: factor by which the third coordinate, if given, is noisier.
        identity_sd: prior standard deviation of the identity coefficients (1 by construction).
        expression_sd: prior standard deviation of the expression weights.
        iterations: maximum number of steps.
        tolerance: the fit of a photo, or of a person's photos together, stops when a step reduces
            its cost by less than this share.

    Raises:
        ValueError: a standard deviation is not above 0, ``iterations`` is not a whole number above
            0, or the tolerance is negative; or a number is not finite.
    """

    noise_mm: float = 2.0
    depth_noise: float = 2.0
    identity_sd: float = 1.0
    expression_sd: float = 0.3
    iterations: int = 30
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("noise_mm", "depth_noise", "identity_sd", "expression_sd"):
            check_above(name, getattr(self, name))
        whole("iterations", self.iterations)
        check_at_least("tolerance", self.tolerance)


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted batch.

    Attributes:
        parameters: pose (B, 3, 4) image_from_model, identity (B, K), expression (B, L).
        landmarks: (B, 68, 3) px, of the fitted model, landmark offsets included.
        residual_px: (B,) weighted root mean square distance in the image over the landmarks.
    """

    parameters: FaceParameters
    landmarks: np.ndarray
    residual_px: np.ndarray

    @property
    def shared_identity(self) -> np.ndarray:
        """(K,) of photos of one person, from the first that has a fit; NaN if none has."""
        return self.parameters.identity[np.isfinite(self.residual_px).argmax()]


def fit_landmarks(
    model: MorphableModel,
    landmarks: np.ndarray,
    visibility: np.ndarray | None = None,
    options: FitOptions = FitOptions(),
) -> FitResult:
    """Fit each photo independently of the others.

    >>> from keras_scnn import MorphableModel
    >>> from keras_scnn.geometry.camera import compose, project
    >>> model = MorphableModel.open_face()
    >>> camera = compose(np.eye(3), 1.0, np.array([60.0, 60.0, 0.0]))  # frontal, 1 px per mm
    >>> fit = fit_landmarks(model, project(camera, model.landmarks())[None])
    >>> bool(fit.residual_px[0] < 0.01)
    True

    Args:
        model: any face model; its landmark offsets are included.
        landmarks: (B, 68, 2) or (B, 68, 3) px, image frame; the third coordinate is depth in px,
            increasing towards the viewer, with any origin.
        visibility: (B, 68) weights, 0 (ignored) or more; None for 1 everywhere.
        options: noise and priors.

    Returns:
        the fits, row by row. For landmarks that no face can have (all on one line, or coincident)
        the parameters and landmarks are NaN and the residual is infinite.

    Raises:
        ValueError: wrong shapes, no photo, values that are not finite, a negative weight, or a
            photo with fewer than 4 visible landmarks.
    """
    landmarks, weights = _checked(landmarks, visibility)
    chunks = [slice(i, i + CHUNK) for i in range(0, len(landmarks), CHUNK)]
    fits = [_fit_rows(model, landmarks[c], weights[c], options) for c in chunks]
    return _joined(fits)


def _joined(fits: list[FitResult]) -> FitResult:
    return FitResult(
        FaceParameters(
            *(np.concatenate([getattr(fit.parameters, name) for fit in fits]) for name in PARTS)
        ),
        np.concatenate([fit.landmarks for fit in fits]),
        np.concatenate([fit.residual_px for fit in fits]),
    )


def fit_person_landmarks(
    model: MorphableModel,
    landmarks: np.ndarray,
    visibility: np.ndarray | None = None,
    options: FitOptions = FitOptions(),
) -> FitResult:
    """Fit all photos of one person: one identity, a pose and an expression for each photo.

    Args, results and errors as ``fit_landmarks``; every row with a fit has the same identity.
    """
    landmarks, weights = _checked(landmarks, visibility)
    sound = ~on_one_line(landmarks, weights)
    try:
        return _fit_together(model, landmarks, weights, sound, options)
    except np.linalg.LinAlgError:  # from a photo that cannot be fitted alone either
        alone = _fit_rows(model, landmarks, weights, options)
    try:
        return _fit_together(
            model, landmarks, weights, sound & np.isfinite(alone.residual_px), options
        )
    except np.linalg.LinAlgError:
        return _joined([_no_fit(model)] * len(landmarks))


def _fit_together(model, landmarks, weights, sound, options: FitOptions) -> FitResult:
    """One person's fit to the photos that are ``sound`` (B,); the others get no fit."""
    if sound.all():
        return _fit(model, landmarks, weights, True, options)
    if not sound.any():
        return _joined([_no_fit(model)] * len(landmarks))
    fits = iter(_rows(_fit(model, landmarks[sound], weights[sound], True, options)))
    return _joined([next(fits) if good else _no_fit(model) for good in sound])


def _rows(fit: FitResult) -> list[FitResult]:
    """A result for each photo."""
    parts = [slice(i, i + 1) for i in range(len(fit.residual_px))]
    return [
        FitResult(
            fit.parameters[part],
            fit.landmarks[part],
            fit.residual_px[part],
        )
        for part in parts
    ]


def _fit_rows(model, landmarks, weights, options: FitOptions) -> FitResult:
    """Fits of single photos; a photo whose matrix is singular does not affect the others."""
    fits: list[FitResult] = []
    sound = ~on_one_line(landmarks, weights)
    if sound.all():
        try:
            return _fit(model, landmarks, weights, False, options)
        except np.linalg.LinAlgError:
            pass
    for row in range(len(landmarks)):
        part = slice(row, row + 1)
        try:
            if not sound[row]:
                raise np.linalg.LinAlgError
            fits.append(_fit(model, landmarks[part], weights[part], False, options))
        except np.linalg.LinAlgError:
            fits.append(_no_fit(model))
    return _joined(fits)


def _no_fit(model: MorphableModel) -> FitResult:
    """The result of one photo with landmarks that no face can have."""
    sizes = (1, 3, 4), (1, model.n_identity), (1, model.n_expression)
    parameters = FaceParameters(*(np.full(size, np.nan) for size in sizes))
    return FitResult(parameters, np.full((1, 68, 3), np.nan), np.array([np.inf]))


def _checked(landmarks, visibility) -> tuple[np.ndarray, np.ndarray]:
    landmarks = _numbers("landmarks", landmarks)
    if landmarks.ndim != 3 or landmarks.shape[1:] not in ((68, 2), (68, 3)) or not len(landmarks):
        raise ValueError(f"landmarks have the shape {landmarks.shape}; expected (B, 68, 2 or 3)")
    given = np.ones(landmarks.shape[:2]) if visibility is None else visibility
    weights = _numbers("visibility", given)
    if weights.shape != landmarks.shape[:2] or not ((weights >= 0) & (weights < np.inf)).all():
        raise ValueError(f"visibility must be {landmarks.shape[:2]} finite weights, none below 0")
    if ((weights > 0).sum(axis=1) < 4).any():
        raise ValueError("visibility leaves fewer than 4 landmarks of a photo; a pose needs 4")
    if not np.isfinite(landmarks[weights > 0]).all():
        raise ValueError("landmarks that count (visibility above 0) must be finite")
    return np.where(weights[..., None] > 0, landmarks, 0), weights


def _numbers(name: str, values) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:  # text, or rows of different lengths
        raise ValueError(f"{name} must be an array of numbers ({error})") from error


def _fit(model, landmarks, weights, one_person: bool, options: FitOptions) -> FitResult:
    group = np.zeros(len(landmarks), int) if one_person else np.arange(len(landmarks))
    noise = np.array([1, 1, options.depth_noise])[: landmarks.shape[-1]] * options.noise_mm
    roots = np.sqrt(weights)[..., None] / noise
    prior_sd = options.identity_sd, options.expression_sd
    solver = LandmarkSolver(model, landmarks, roots, group, prior_sd)
    with ONE_BLAS_THREAD.held():
        state = solver.solve(options.iterations, options.tolerance)
    shift = np.zeros((len(landmarks), 3))
    shift[:, : landmarks.shape[-1]] = state.shift
    pose = compose(state.rotation, state.scale, shift)
    fitted = project(pose, solver.shapes(state))
    square = ((fitted[..., :2] - landmarks[..., :2]) ** 2).sum(axis=-1)
    residual = np.sqrt((weights * square).sum(axis=1) / weights.sum(axis=1))
    return FitResult(
        FaceParameters(pose, state.identity[group], state.expression), fitted, residual
    )
