"""Synthetic people: random faces of the face model, each rendered under many conditions."""

from __future__ import annotations

import hashlib
import json
import math
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from keras_scnn.data.records import (
    MANIFEST,
    FaceRecords,
    finish_records,
    is_records,
    load_records,
    read_shard,
    write_shard,
)
from keras_scnn.data.synthesis.appearance import FacePainter, random_light
from keras_scnn.data.synthesis.portraits import (
    PortraitPainter,
    dead_leaves,
    draw_behind,
    draw_glasses,
)
from keras_scnn.face_models import load_face_model
from keras_scnn.geometry.camera import compose, project, transform_camera
from keras_scnn.geometry.crops import crop_from_image
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.geometry.shading import render
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters
from keras_scnn.photos.cropping import box_from_landmarks
from keras_scnn.reconstruction.gaze import has_eyes, look_names, look_weights
from keras_scnn.settings import check_types, check_workers
from keras_scnn.storage.one_thread import one_thread_each
from keras_scnn.storage.remote import local_path
from keras_scnn.storage.shards import fingerprint

SUPERSAMPLE = 2  # photos are rendered at twice the size, for smooth edges
RENDERING = 4  # increase it with every change of the rendering, to invalidate caches
PEOPLE_PER_SHARD = 100
TONGUE, JAW, LEAST_JAW = "tongueOut", "jawOpen", 0.35  # the tongue needs an open mouth
ACTIVE_UNITS = 5  # mean number of nonzero expression weights
BLINKING, LEAST_BLINK = 0.5, 0.3  # share of portraits with both eyes closing; least such weight
GAZE_DEGREES = (6.0, 12.0)  # standard deviations of the pitch and yaw of portraits' eyes
LIMITS = {"people": (1, math.inf), "photos": (1, math.inf), "size": (8, math.inf)}
LIMITS |= {"seed": (0, math.inf), "first_person": (0, math.inf), "yaw_degrees": (0, 90)}
LIMITS |= {"pitch_degrees": (0, 60), "roll_degrees": (0, 60), "jitter": (0, 0.5), "spread": (0, 2)}
"""Smallest and largest value of each number in a ``SyntheticConfig``."""


@dataclass(frozen=True)
class SyntheticConfig:
    """Settings of rendered people.

    Attributes:
        people: number of identities.
        photos: number of photos per identity.
        seed: of everything random.
        first_person: number of the first identity; different numbers are different people.
        face_model: name or path.
        size: side of the crops, px.
        yaw_degrees: limit of the yaw, which is uniform.
        pitch_degrees, roll_degrees: standard deviations.
        jitter: standard deviation of the crop's shift, as a share of its side, and of its log size.
        spread: standard deviation of the identity coefficients. Fits to photos have about half of
            the open model's, which is 1.
        portraits: True: with hair, neck, clothes and glasses, in front of pictures of shapes (see
            ``portraits``); False: heads alone, in front of noise.

    Raises:
        ValueError: a value has the wrong type, or a number is outside of its ``LIMITS``.
    """

    people: int = 600
    photos: int = 16
    seed: int = 0
    first_person: int = 0
    face_model: str = "open_face"
    size: int = 120
    yaw_degrees: float = 60.0
    pitch_degrees: float = 12.0
    roll_degrees: float = 10.0
    jitter: float = 0.03
    spread: float = 1.0
    portraits: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        for name, (low, high) in LIMITS.items():
            if not low <= (value := getattr(self, name)) <= high:
                limits = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
                raise ValueError(f"{name} is {value}; it must be {limits}")

    @property
    def key(self) -> str:
        """Hash of all that determines the photos, 12 hexadecimal digits; names the cache folder."""
        content = model_content(load_face_model(self.face_model))
        text = json.dumps([RENDERING, content, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def model_content(model: MorphableModel) -> list:
    """The parts of a face model that determine photos and labels; its digest covers only some."""
    arrays = (model.landmark_offsets, model.uv, model.regions)
    sums = [None if a is None else zlib.crc32(np.ascontiguousarray(a).data) for a in arrays]
    return [model.name, model.digest, *sums]


def cached_records(config: SyntheticConfig, cache: str | os.PathLike) -> FaceRecords:
    """The records of a configuration, rendered only once and cached in ``cached_folder``.

    Raises:
        ValueError: the cached records are damaged.
    """
    folder = cached_folder(config, cache)
    if not is_records(folder):
        render_records(config, folder)
    return load_records(folder)


def cached_folder(config: SyntheticConfig, cache: str | os.PathLike) -> Path:
    """The folder in which ``cached_records`` caches the records of a configuration."""
    return local_path(cache) / f"synthetic-{config.key}"


def render_records(
    config: SyntheticConfig, folder: str | os.PathLike, workers: int | None = None
) -> None:
    """Render all people into a folder of records, on all cores, with a progress bar.

    The same configuration gives the same photos with any number of workers. An interrupted run is
    resumed; shards of another configuration in the folder are replaced.

    Args:
        config: of the people.
        folder: for the records.
        workers: number of threads, 1 or more; None for one per core.

    Raises:
        NotADirectoryError: a file is in the folder's place.
        ValueError: ``workers`` is below 1.
    """
    check_workers(workers)
    folder = local_path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(f"{folder}: cannot be made, a file is in its place") from error
    (folder / MANIFEST).unlink(missing_ok=True)  # written again when all shards are complete
    end = config.first_person + config.people
    firsts, key = range(config.first_person, end, PEOPLE_PER_SHARD), config.key
    with tqdm(desc="rendering people", total=config.people) as progress:
        for number, first in enumerate(firsts):
            people = range(first, min(first + PEOPLE_PER_SHARD, end))
            if read_shard(folder, number, key) is None:
                rendered = _map(config, people, workers or os.cpu_count() or 1)
                records = _records(config, people, rendered, progress)
                write_shard(folder, number, records, key=key)
            else:
                progress.update(len(people))
    model = load_face_model(config.face_model)
    settings = asdict(config) | {"face_model_digest": model.digest}
    finish_records(folder, len(firsts), model.name, settings)


def _records(config: SyntheticConfig, people: range, rendered, progress) -> FaceRecords:
    parts = []
    for part in rendered:
        parts.append(part)
        progress.update()
    return _joined(config, people, parts)


def _joined(config: SyntheticConfig, people: Sequence[int], parts: list) -> FaceRecords:
    images, parameters, landmarks = (np.concatenate(array) for array in zip(*parts, strict=True))
    identity = np.repeat(np.array(people, np.int32), config.photos)
    model = _model_and_painter(config)[0]
    settings = {"face_model_digest": model.digest}
    return FaceRecords(images, parameters, landmarks, identity, model.name, settings)


def _map(config: SyntheticConfig, people: range, workers: int):
    """``render_person`` for each person in order, in threads: the work releases the GIL."""
    _model_and_painter(config)  # once, before the threads need it
    with one_thread_each(), ThreadPoolExecutor(workers) as pool:
        yield from pool.map(render_person, [config] * len(people), people)


def render_people(config: SyntheticConfig, people: Sequence[int] | None = None) -> FaceRecords:
    """Render photos of people in memory, in the calling thread.

    Args:
        config: how they are rendered.
        people: their numbers; None: all of the configuration.
    """
    if people is None:
        people = range(config.first_person, config.first_person + config.people)
    return _joined(config, people, [render_person(config, person) for person in people])


def _model_and_painter(config: SyntheticConfig):
    """The face model, and a painter of textures with the resolution of the rendering."""
    state = tuple(fingerprint(Path(config.face_model)))
    return _painter(config.face_model, state, config.size, config.portraits)


@lru_cache(maxsize=2)
def _painter(name: str, state: tuple[int, ...], size: int, portraits: bool):
    """A face model and its painter, cached until the model file's ``state`` changes."""
    model = load_face_model(name)
    return model, (PortraitPainter if portraits else FacePainter)(model, SUPERSAMPLE * size)


def render_person(
    config: SyntheticConfig, person: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All photos of one person.

    Returns:
        crops (photos, S, S, 3) uint8 RGB, parameters (photos, P) float32, unwhitened, and
        landmarks (photos, 68, 3) float32, crop px and depth.
    """
    model, painter = _model_and_painter(config)
    rng = np.random.default_rng([config.seed, person])
    identity = np.float32(config.spread) * rng.standard_normal(model.n_identity, np.float32)
    look = painter.portrait(rng) if config.portraits else painter.paint(rng)
    expressions = np.stack([_expression(model, rng) for _ in range(config.photos)])
    if config.portraits:
        _turn_eyes(expressions, model, rng)
        _close_eyes(expressions, model.arkit_names, rng)
    shapes = model.vertices(identity, expressions)
    landmarks = shapes[:, model.landmark_indices] + model.landmark_offsets
    poses = _cameras(config, landmarks, rng)
    cameras = _enlarged(poses, SUPERSAMPLE).astype(np.float32)
    posed = project(cameras, shapes)
    photo = _portrait_photo if config.portraits else _head_photo
    each = zip(cameras, posed, landmarks, strict=True)
    crops = np.stack([photo(config.size, model, *one, look, rng) for one in each])
    identities = np.tile(identity, (config.photos, 1))
    vectors = FaceParameters(poses, identities, expressions).to_vector()
    return crops, vectors, project(poses, landmarks).astype(np.float32)


def _head_photo(size: int, model, camera, posed, landmarks, texture: np.ndarray, rng) -> np.ndarray:
    background = _background(rng, size * SUPERSAMPLE)
    light = random_light(rng)
    image, _ = render(posed, model.triangles, model.uv, texture, light, background)
    return degrade(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), rng)


def _portrait_photo(size: int, model, camera, posed, landmarks, portrait, rng) -> np.ndarray:
    scene = dead_leaves(rng, size * SUPERSAMPLE)
    draw_behind(scene, portrait, camera, posed, model.mean, rng)
    light = random_light(rng)
    image, _ = render(posed, model.triangles, model.uv, portrait.texture, light, scene)
    draw_glasses(image, portrait, camera, landmarks)
    return degrade(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), rng)


def _expression(model, rng) -> np.ndarray:
    """(L,) a few expression weights at random values within the model's bounds, the others 0."""
    active = rng.random(model.n_expression) < ACTIVE_UNITS / model.n_expression
    weights = np.where(active, rng.beta(1.2, 2.0, model.n_expression), 0)
    names = model.arkit_names
    if TONGUE in names and JAW in names and weights[names.index(TONGUE)] > 0:
        weights[names.index(JAW)] = max(weights[names.index(JAW)], LEAST_JAW)
    return model.clip_expression(weights).astype(np.float32)


def _turn_eyes(expressions: np.ndarray, model: MorphableModel, rng) -> None:
    """Let both eyes look the same way, in place: independent weights turn each on its own."""
    if not has_eyes(model) or not {*look_names()} <= set(model.arkit_names):
        return
    looks = look_weights(model)
    gaze = rng.normal(0, GAZE_DEGREES, (len(expressions), 2))
    chosen = looks.any(axis=0)
    expressions[:, chosen] = model.clip_expression(gaze @ looks)[:, chosen]


def _close_eyes(expressions: np.ndarray, names: tuple[str, ...], rng) -> None:
    """Close both eyes in some expressions, in place: independent weights hardly ever do so."""
    if not {"eyeBlinkLeft", "eyeBlinkRight"} <= set(names):
        return
    chosen = rng.random(len(expressions)) < BLINKING
    strength = rng.uniform(LEAST_BLINK, 1, len(expressions))
    for side in ("Left", "Right"):
        expressions[chosen, names.index(f"eyeBlink{side}")] = strength[chosen]
        if f"eyeWide{side}" in names:
            expressions[chosen, names.index(f"eyeWide{side}")] = 0


def _cameras(config: SyntheticConfig, landmarks: np.ndarray, rng) -> np.ndarray:
    """(photos, 3, 4) random crop_from_model cameras of the standard crops, with jitter."""
    count, spread = len(landmarks), [config.pitch_degrees, config.roll_degrees]
    yaw = rng.uniform(-config.yaw_degrees, config.yaw_degrees, count)
    pitch, roll = rng.normal(0, spread, (count, 2)).T
    rotation = rotation_from_euler(np.deg2rad(np.stack([pitch, yaw, roll], axis=-1)))
    camera = compose(rotation, np.ones(count), np.zeros((count, 3)))
    boxes = np.stack([box_from_landmarks(p).as_array() for p in project(camera, landmarks)])
    side = boxes[:, 2:] - boxes[:, :2]
    middle = (boxes[:, 2:] + boxes[:, :2]) / 2 + side * rng.normal(0, config.jitter, (count, 2))
    half = side / 2 * np.exp(rng.normal(0, config.jitter, (count, 1)))
    box = np.concatenate([middle - half, middle + half], axis=-1)
    return transform_camera(crop_from_image(box, config.size), camera)


def _enlarged(camera: np.ndarray, factor: int) -> np.ndarray:
    """The cameras for crops of ``factor`` times the size, with pixel centers at integers."""
    shift = (factor - 1) / 2
    return transform_camera(np.array([[factor, 0, shift], [0, factor, shift]], float), camera)


def _background(rng, size: int) -> np.ndarray:
    """Color noise at a random scale, (size, size, 3) float32."""
    cells = rng.choice([2, 4, 8, 24])
    coarse = rng.uniform(0, 255, (cells, cells, 3)).astype(np.float32)
    modes = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)
    return cv2.resize(coarse, (size, size), interpolation=modes[rng.integers(len(modes))])


def degrade(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Degrade a crop like photos: blur, an occluder, low contrast, noise.

    Args:
        image: (S, S, 3) uint8.
        rng: of the random changes.

    Returns:
        (S, S, 3) uint8.
    """
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.4))
    if rng.random() < 0.2:
        image = _occlude(image, rng)
    gain = np.exp(rng.normal(0, 0.12, 3)) * rng.uniform(0.7, 1.1)
    offset = 128 * (1 - gain) + rng.normal(0, 10)
    degraded = rng.standard_normal(image.shape, np.float32)
    degraded *= np.float32(rng.uniform(0, 8))
    degraded += image * np.float32(gain) + np.float32(offset)
    return np.clip(degraded, 0, 255, out=degraded).astype(np.uint8)


def _occlude(image: np.ndarray, rng) -> np.ndarray:
    """Draw a random ellipse of uniform color over the crop."""
    size = image.shape[0]
    center, axes = (
        rng.integers(0, size, 2).tolist(),
        rng.integers(size // 12, size // 3, 2).tolist(),
    )
    color = rng.uniform(0, 255, 3).tolist()
    image = np.ascontiguousarray(image)
    return cv2.ellipse(image, center, axes, rng.uniform(0, 180), 0, 360, color, -1, cv2.LINE_AA)
