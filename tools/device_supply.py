"""Batches for ``distill``, made on the accelerator of a pack of photos, with their labels (JAX)."""

from __future__ import annotations

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from device_photos import (
    BatchPlan,
    chips,
    draw,
    move_labels,
    moves,
    recolor,
    render,
)
from dlib_network import DlibNetwork
from keras_scnn.data.labels.identity_labels import ShapePosterior, align_means, learn_posterior
from keras_scnn.data.labels.recognizer import CHIP_SIZE, EMBEDDING_SIZE
from keras_scnn.data.sources.blends import MOST_DEGREES
from keras_scnn.face_models import load_face_model
from keras_scnn.geometry.camera import decompose
from keras_scnn.geometry.rotations import euler_from_rotation
from keras_scnn.morphable_model import mirror_matrices
from keras_scnn.parameters import POSE_SIZE, ParameterLayout, ParameterSpace, Whitening
from keras_scnn.training.groups import PROFILE_DEGREES
from pack_photos import CROP, FRAME

PROFILE_EMPHASIS = 2.2
PEOPLE_LANDMARKS = 0.4  # weight of landmarks of people folders, which networks have placed
CHUNKS = 100


class Supply:
    """Photos, recognizer and labels. The last source of the pack is of people, the others single.

    A photo in a group gets the posterior of its own fit and of what the recognizer says of the
    blend as its shape, a single one its own fit: the network may find out by itself how far a fit
    can be trusted.

    Args:
        pack: of ``pack_photos``.
        recognizer: says of a chip whom it shows.
        plan: of the batches.
        held_out: the last people take no part.

    Attributes:
        space: of the labels; its face model has their landmark offsets.
        photos: all that batches are made of, on the device.
    """

    def __init__(self, pack: dict, recognizer: DlibNetwork, plan: BatchPlan, held_out: int):
        model = load_face_model("open_face")
        self.model = model.replace(landmark_offsets=pack["landmark_offsets"])
        self.layout = ParameterLayout(model.n_identity, model.n_expression)
        self.plan, self._recognizer = plan, recognizer
        self._mirrors = tuple(jnp.asarray(m) for m in mirror_matrices(self.model))
        people = np.unique(pack["identity"])
        self._seen = np.isin(pack["identity"], people[: len(people) - held_out])
        self._grouped = pack["source"] == pack["source"].max()
        pose = np.float64(pack["parameters"][:, :POSE_SIZE]).reshape(-1, 3, 4)
        euler = np.rad2deg(euler_from_rotation(decompose(pose)[0]))
        self._frontal = np.abs(euler[:, 1:]).max(axis=1) < MOST_DEGREES
        landmarks = pack["landmarks"].copy()
        landmarks[self._grouped, :, 3] *= PEOPLE_LANDMARKS
        self.photos = {
            "frames": jnp.asarray(read_frames(pack["files"], pack["sizes"]).ravel()),
            "landmarks": jnp.asarray(landmarks),
            "euler": jnp.asarray(euler, jnp.float32),
            "is_frontal": jnp.asarray(self._frontal),
            "frontal": jnp.asarray(np.flatnonzero(self._frontal & self._seen)),
            **{name: jnp.asarray(pack[name]) for name in ("limits", "identity", "source")},
            **self._groups(pack["identity"]),
            **self._singles(euler[:, 1]),
        }
        self.photos |= self._labels(pack)

    def _groups(self, identity: np.ndarray) -> dict:
        """The photos of each person who has enough for a group, filled up with zeros."""
        rows = [np.flatnonzero(identity == p) for p in np.unique(identity[self._seen])]
        rows = [own for own in rows if len(own) >= self.plan.photos]
        table = np.zeros((len(rows), max(map(len, rows))), np.int32)
        for line, own in zip(table, rows, strict=True):
            line[: len(own)] = own
        return {"of_person": jnp.asarray(table), "count": jnp.asarray([len(own) for own in rows])}

    def _singles(self, yaw: np.ndarray) -> dict:
        """The photos that come alone, and how often, summed up."""
        rows = np.flatnonzero(self._seen & ~self._grouped)
        turned = np.minimum(np.abs(yaw[rows]) / PROFILE_DEGREES, 1)
        total = np.cumsum(1 + (PROFILE_EMPHASIS - 1) * turned)
        return {
            "single": jnp.asarray(rows),
            "single_cdf": jnp.asarray(total / total[-1], jnp.float32),
        }

    def _labels(self, pack: dict) -> dict:
        """What the labels of batches are made of."""
        rows = np.array_split(np.arange(len(self._seen)), CHUNKS)
        raw = np.concatenate([self._embed_plain(part) for part in rows])
        source, used = pack["source"], self._seen & self._frontal
        means = np.stack([raw[used & (source == s)].mean(axis=0) for s in np.unique(source)])
        centered = raw - means[source]
        length = np.linalg.norm(centered[used], axis=1).mean()
        weights, identity = self.model.identity_weights_mm, self.layout.identity
        joint = align_means(
            np.float64(pack["parameters"][:, identity]) * weights, source, self._seen
        )
        own = align_means(pack["single_identity"] * weights, source, self._seen)
        parts = joint, own, centered / length, pack["identity"]
        posterior = learn_posterior(*(part[used] for part in parts))
        whitening = self._whitening(pack["parameters"], own, centered / length, posterior)
        self.space = ParameterSpace(self.model, whitening)
        found = {
            "vectors": pack["parameters"],
            "own": own,
            "means": means,
            "length": length,
            "kernel": posterior.kernel,
            "offset": posterior.offset,
            "gain": posterior.gain,
            "weights": weights,
            "whitening_mean": whitening.mean,
            "whitening_scale": whitening.scale,
        }
        return {name: jnp.asarray(value, jnp.float32) for name, value in found.items()}

    def _whitening(self, parameters, own, embedding, posterior: ShapePosterior) -> Whitening:
        """Of the labels of the photos as they are."""
        embedding = np.where(self._frontal[:, None], embedding, np.nan)
        shapes = np.where(self._grouped[:, None], posterior(own, embedding), own)
        vectors = parameters.copy()
        vectors[:, self.layout.identity] = shapes / self.model.identity_weights_mm
        return Whitening.from_samples(vectors[self._seen])

    def _embed_plain(self, rows: np.ndarray) -> np.ndarray:
        """(m, 128) what the recognizer says of photos as they are."""
        rows = jnp.asarray(rows)
        nobody = {"host": rows, "guest": rows, "share": jnp.zeros(len(rows))}
        return np.asarray(jax.jit(self._embed)(self.photos, nobody))

    def _embed(self, photos: dict, drawn: dict):
        """(B, 128) what the recognizer says of a drawn batch."""
        chip, _ = render(photos, drawn, chips(photos, drawn), CHIP_SIZE)
        return self._recognizer(chip)

    def batch(self, key, photos: dict) -> tuple:
        """Images (B, 120, 120, 3), 0 to 255, and what a group network should say of them.

        Args:
            key: of the random numbers.
            photos: ``self.photos``, given so that a compiled program does not hold a copy.
        """
        keys = jax.random.split(key, 3)
        drawn = draw(keys[0], photos, self.plan)
        matrix = moves(keys[1], photos, drawn, self.plan)
        images, inside = render(photos, drawn, matrix, CROP)
        host, frontal = drawn["host"], photos["is_frontal"][drawn["host"]][:, None]
        embedding = self._centered(photos, drawn, self._embed(photos, drawn))
        taught = frontal & (jnp.arange(len(host)) < self.plan.grouped)[:, None]
        shape = jnp.where(taught, _posterior(photos, host, embedding), photos["own"][host])
        vectors = photos["vectors"][host]
        vectors = vectors.at[:, self.layout.identity].set(shape / photos["weights"])
        landmarks, vectors = move_labels(matrix, photos["landmarks"][host], vectors, self._mirrors)
        return recolor(keys[2], images, inside), {
            "parameters": (vectors - photos["whitening_mean"]) / photos["whitening_scale"],
            "landmarks": landmarks,
            "person": drawn["person"],
            "embedding": jnp.where(frontal, embedding, jnp.nan),
        }

    def _centered(self, photos: dict, drawn: dict, embedding):
        """Embeddings of blends without the mean of their sources, about 1 long."""
        host, guest = (
            photos["means"][photos["source"][drawn[who]]].reshape(-1, EMBEDDING_SIZE)
            for who in ("host", "guest")
        )
        share = drawn["share"][:, None]
        return (embedding - (1 - share) * host - share * guest) / photos["length"]


def _posterior(photos: dict, host, embedding):
    """(B, K) mm, as ``ShapePosterior`` has it."""
    told = embedding @ photos["kernel"] + photos["offset"]
    return told + (photos["own"][host] - told) @ photos["gain"].T


def read_frames(files: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(n, FRAME, FRAME) uint32 of JPEG files one after the other: red in the lowest byte."""
    ends = np.cumsum(sizes)
    frames = np.empty((len(sizes), FRAME, FRAME), np.uint32)
    for i, (end, size) in enumerate(zip(ends, sizes, strict=True)):
        image = cv2.imdecode(files[end - size : end], cv2.IMREAD_COLOR).astype(np.uint32)
        frames[i] = image[..., 2] | image[..., 1] << 8 | image[..., 0] << 16
    return frames
