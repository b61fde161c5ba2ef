"""Photos, recognizer and labels in an accelerator's memory, and batches made from them (JAX)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from keras_scnn.data.known_landmarks import known_landmarks
from keras_scnn.data.labels.identity_labels import (
    Photos,
    align_means,
    teach_identity,
    well_known,
)
from keras_scnn.data.records import photos_of_each
from keras_scnn.data.sources.blends import can_blend
from keras_scnn.evaluation.pairs import rows_of_people
from keras_scnn.geometry.similarities import move_landmarks, move_parameters
from keras_scnn.models.recognizers.dlib import Recognizer
from keras_scnn.morphable_model import MorphableModel, mirror_matrices
from keras_scnn.parameters import ParameterLayout, ParameterSpace
from keras_scnn.storage.text import counted
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.groups import emphasis
from keras_scnn.training.matching.batches import (
    BatchPlan,
    chips,
    draw,
    moves,
    recolor,
    render_blends,
)
from keras_scnn.training.matching.pack import Pack

TAUGHT = ("shapes", "embedding", "means", "length")
CHUNK = 256  # photos that the recognizer embeds at once


class Supply:
    """Photos, recognizer and labels.

    The shape label of a photo is the posterior mean given its own fit and the recognizers'
    embedding of the blend, or its own fit alone (``shape_labels``). Faces that cannot be
    blended (``blends.can_blend``) have the labels of ``teach_identity``.

    Args:
        config: of the run.
        pack: the photos.
        model: face model of the labels, with mirror partners.
        recognizers: their embeddings of a photo are concatenated; if there are several, the last
            must recognize turned faces too.
        seen: positions of the photos to train on.

    Attributes:
        plan: of the batches.
        photos: all arrays that batches are made from, on the device.
        embedding: (n, E) float32, the target of the network: embeddings minus their data set's
            mean, each recognizer's of length 1 on average; with a single recognizer NaN for faces
            that cannot be blended.
        vectors: (n, P) float32 labels of the photos without blending.
        space: parameter space of these labels.

    Raises:
        ValueError: too few people or photos to train on (see also ``teach_identity``).
    """

    def __init__(
        self,
        config: TrainConfig,
        pack: Pack,
        model: MorphableModel,
        recognizers: Sequence[Recognizer],
        seen: np.ndarray,
    ):
        records, self._source = pack.mixture.records, pack.mixture.source
        self._config, self._model, self._recognizers = config, model, recognizers
        self._shape_labels = SHAPE_LABELS[config.shape_labels]
        self.plan = batch_plan(config, records.images.shape[1], pack.margin)
        self._identity = ParameterLayout(model.n_identity, model.n_expression).identity
        self._mirrors = tuple(jnp.asarray(m) for m in mirror_matrices(model))
        self._seen = np.isin(np.arange(len(records)), seen)
        self._in_group = self._choose_groups(records.identity)
        euler = records.euler_degrees()
        self._frontal = can_blend(euler)
        well_known(records.identity[self._frontal & self._seen])  # before all are embedded
        landmarks = known_landmarks(records, model)
        weight = np.where(self._in_group, config.group_landmarks, 1.0)[:, None] * records.weight
        self.photos = {
            "frames": jnp.asarray(packed_colors(pack.frames).ravel()),
            "limits": jnp.asarray(pack.limits),
            "landmarks": jnp.asarray(np.dstack([landmarks, weight]), jnp.float32),
            "euler": jnp.asarray(euler, jnp.float32),
            "is_frontal": jnp.asarray(self._frontal),
            "frontal": jnp.asarray(np.flatnonzero(self._frontal & self._seen)),
            "identity": jnp.asarray(records.identity),
            "source": jnp.asarray(self._source),
            **self._groups(records.identity),
            **self._singles(euler[:, 1]),
        }
        self._make_labels(pack)

    def _choose_groups(self, identity: np.ndarray) -> np.ndarray:
        """(n,) bool: photos of the folders after the singles', or of people with enough photos."""
        if self._config.single_data:
            return self._source >= self._config.single_data
        return photos_of_each(identity) >= self.plan.photos

    def _groups(self, identity: np.ndarray) -> dict:
        """Rows of the photos of each person with enough for a group, padded with zeros."""
        rows = [own for own in rows_of_people(identity) if len(own) >= self.plan.photos]
        rows = [own for own in rows if self._seen[own].any()]
        if len(rows) < max(self.plan.people, 2):
            raise ValueError(
                f"group_people is {self.plan.people}: only {counted(len(rows), 'person')} with "
                f"group_photos ({self.plan.photos}) or more photos; {max(self.plan.people, 2)} are "
                "needed"
            )
        table = np.zeros((len(rows), max(map(len, rows))), np.int32)
        for line, own in zip(table, rows, strict=True):
            line[: len(own)] = own
        return {"of_person": jnp.asarray(table), "count": jnp.asarray([len(own) for own in rows])}

    def _singles(self, yaw: np.ndarray) -> dict:
        """Rows of the single photos, and the cumulative distribution they are drawn from."""
        last = self._config.single_data or self._source.max() + 1
        rows = np.flatnonzero(self._seen & (self._source < last))
        total = np.cumsum(emphasis(self._config, yaw[rows]))
        cdf = jnp.asarray(total / total[-1], jnp.float32)
        return {"single": jnp.asarray(rows), "single_cdf": cdf}

    def _make_labels(self, pack: Pack) -> None:
        """Compute the labels, and what those of batches are computed from; see the attributes."""
        records, identity = pack.mixture.records, self._identity
        raw = self._embed_plain(len(records))
        weights = self._model.identity_weights_mm
        joint, alone = np.float64(records.parameters[:, identity]), pack.single_identity
        known = Photos(records.identity, self._source, self._frontal, self._seen)
        sizes = [one.size for one in self._recognizers]
        taught = teach_identity(joint * weights, alone * weights, raw, sizes, known)
        self.embedding = taught.embedding
        own = align_means(alone * weights, self._source, self._seen)
        arrays = {"vectors": records.parameters, "own": own, "weights": weights}
        arrays |= {name: getattr(taught, name) for name in TAUGHT}
        arrays |= {name: getattr(taught.posterior, name) for name in ("kernel", "offset", "gain")}
        self.vectors = records.parameters.copy()
        self.vectors[:, identity] = arrays[self._shape_labels.of_photos] / weights
        self.space = ParameterSpace.from_samples(self._model, self.vectors[self._seen])
        whitening = self.space.whitening
        arrays |= {"whitening_mean": whitening.mean, "whitening_scale": whitening.scale}
        self.photos |= {name: jnp.asarray(a, jnp.float32) for name, a in arrays.items()}

    def _embed_plain(self, count: int) -> np.ndarray:
        """(n, E) the recognizers' embeddings of the photos without blending."""
        embed, parts = jax.jit(self._embed), []
        for start in range(0, count, CHUNK):
            rows = jnp.minimum(jnp.arange(start, start + CHUNK), count - 1)  # of one shape
            alone = {"host": rows, "guest": rows, "share": jnp.zeros(CHUNK)}
            parts.append(np.asarray(embed(self.photos, alone)))
        return np.concatenate(parts)[:count]

    def _embed(self, photos: dict, drawn: dict):
        """(B, E) the recognizers' embeddings of a drawn batch."""
        return jnp.concatenate([self._embed_by(one, photos, drawn) for one in self._recognizers], 1)

    def _embed_by(self, one: Recognizer, photos: dict, drawn: dict):
        matrix = chips(photos, drawn, one.chip)
        images, _ = render_blends(photos, drawn, matrix, self.plan, one.chip.size)
        kind = "bfloat16" if self._config.precision == "mixed_bfloat16" else "float32"
        return one(images.astype(kind))

    def batch(self, key: jax.Array, photos: dict) -> tuple[jax.Array, dict]:
        """Images (B, S, S, 3), 0 to 255, and their labels by the names of ``OBJECTIVES``.

        Args:
            key: random key.
            photos: ``self.photos``, an argument so that a compiled program does not hold a copy.
        """
        keys = jax.random.split(key, 3)
        drawn = draw(keys[0], photos, self.plan)
        matrix = moves(keys[1], photos, drawn, self.plan)
        images, inside = render_blends(photos, drawn, matrix, self.plan, self.plan.size)
        host, frontal = drawn["host"], photos["is_frontal"][drawn["host"]][:, None]
        embedding = self._centered(photos, drawn, self._embed(photos, drawn))
        embedding = jnp.where(frontal, embedding, photos["embedding"][host])
        shape = self._shape_labels.of_batch(photos, host, embedding)
        vectors = photos["vectors"][host]
        vectors = vectors.at[:, self._identity].set(shape / photos["weights"])
        vectors = move_parameters(vectors, matrix, self._mirrors, jnp)
        return recolor(keys[2], images, inside), {
            "parameters": (vectors - photos["whitening_mean"]) / photos["whitening_scale"],
            "landmarks": move_landmarks(photos["landmarks"][host], matrix, jnp),
            "person": drawn["person"],
            "embedding": embedding,
        }

    def _centered(self, photos: dict, drawn: dict, embedding):
        """Embeddings of blends minus the mean of their sources, of length about 1."""
        host, guest = (photos["means"][photos["source"][drawn[who]]] for who in ("host", "guest"))
        share = drawn["share"][:, None]
        return (embedding - (1 - share) * host - share * guest) / photos["length"]


def batch_plan(config: TrainConfig, size: int, margin: int) -> BatchPlan:
    """The plan of the settings, for crops of ``size`` px with a margin."""
    return BatchPlan(
        config.group_people,
        config.group_photos,
        config.single_photos,
        config.blend_groups,
        config.blend_singles,
        size,
        margin,
    )


def taught_shapes(photos: dict, host: jax.Array, embedding: jax.Array) -> jax.Array:
    """(B, K) mm: the mean of ``ShapePosterior``; for turned faces, their label."""
    prior = embedding @ photos["kernel"] + photos["offset"]
    posterior = prior + (photos["own"][host] - prior) @ photos["gain"].T
    return jnp.where(photos["is_frontal"][host][:, None], posterior, photos["shapes"][host])


def single_shapes(photos: dict, host: jax.Array, embedding: jax.Array) -> jax.Array:
    """(B, K) mm: the fits to single photos, minus the mean of their data set."""
    return photos["own"][host]


class ShapeLabels(NamedTuple):
    """Source of the shape labels, mm.

    Attributes:
        of_photos: key in ``Supply.photos`` of the labels (n, K) of photos without blending.
        of_batch: from ``Supply.photos``, rows (B,) and embeddings (B, E) to labels (B, K).
    """

    of_photos: str
    of_batch: Callable[[dict, jax.Array, jax.Array], jax.Array]


SHAPE_LABELS = {
    "taught": ShapeLabels("shapes", taught_shapes),
    "single": ShapeLabels("own", single_shapes),
}
"""The choices of the setting ``shape_labels``."""


def packed_colors(frames: np.ndarray) -> np.ndarray:
    """(n, F, F) uint32 of (n, F, F, 3) uint8 RGB: red in the lowest byte."""
    packed = np.empty(frames.shape[:3], np.uint32)
    for one, image in zip(packed, frames, strict=True):
        red, green, blue = (image[..., i].astype(np.uint32) for i in range(3))
        one[:] = red | green << 8 | blue << 16
    return packed
