"""Random adults from MakeHuman's sliders, and the identity basis that their variation spans.

No scan of a person is in it: sex, age, origin, muscle and weight ("macros") and some 150 local
sliders are drawn at random. The spread of the local sliders is a judgment: at full spread the
faces are monstrous, at half of it they look like people.
"""

from __future__ import annotations

import itertools
import re

import numpy as np
import scipy.linalg

from keras_scnn.geometry.alignment import apply_similarity, similarity_alignment
from makehuman import HeadData

SPREAD = {
    "head": 0.15, "nose": 0.19, "mouth": 0.19, "eyes": 0.19, "chin": 0.20, "cheek": 0.20,
    "forehead": 0.19, "eyebrows": 0.20, "ears": 0.15, "asym": 0.08, "neck": 0.12,
}  # fmt: skip
# Sliders that move the face as a whole get a third, since alignment takes that out again.
WHOLE = re.compile(r"(nose|mouth)-trans")
LEFT_OUT = re.compile(
    r"head-trans|head-back|head-angle|ear-shape|neck-trans|neck-back|measure|breast|trunk"
    r"|asym.*(ear|top)"
)
OPPOSITES = (
    ("decr", "incr"), ("down", "up"), ("backward", "forward"), ("in", "out"),
    ("concave", "convex"), ("compress", "uncompress"), ("l", "r"),
)  # fmt: skip
RACES, SEXES, AGES = ("african", "asian", "caucasian"), ("female", "male"), ("young", "old")
SIDE_SHARE = 0.25  # how much the two sides of one face differ, of the slider's spread


def sample_people(data: HeadData, count: int, rng: np.random.Generator):
    """Slider weights of random adults.

    Returns:
        names of T targets, and (count, T) weights >= 0.
    """
    columns = _macro_weights(count, rng)
    for folder, spread in SPREAD.items():
        names = [n for n in data.names(folder) if not LEFT_OUT.search(n)]
        columns |= _local_weights(names, spread, count, rng)
    return list(columns), np.stack(list(columns.values()), axis=1)


def _macro_weights(count: int, rng) -> dict[str, np.ndarray]:
    male = np.clip(rng.normal(rng.choice([0.12, 0.88], count), 0.15), 0, 1)
    old = 0.9 * rng.beta(1.1, 1.8, count)
    race = rng.dirichlet([0.6] * 3, count)
    sex, age = {"female": 1 - male, "male": male}, {"young": 1 - old, "old": old}
    muscle = _three_levels(rng.normal(0.5, 0.18, count), "muscle")
    weight = _three_levels(rng.normal(0.5, 0.2, count), "weight")
    columns = {}
    for s, a in itertools.product(SEXES, AGES):
        for i, r in enumerate(RACES):
            columns[f"macrodetails/{r}-{s}-{a}"] = race[:, i] * sex[s] * age[a]
        for m, w in itertools.product(muscle, weight):
            share = sex[s] * age[a] * muscle[m] * weight[w]
            columns[f"macrodetails/universal-{s}-{a}-{m}-{w}"] = share
    return columns


def _three_levels(x: np.ndarray, what: str) -> dict[str, np.ndarray]:
    x = np.clip(x, 0, 1)
    levels = {"min": 1 - 2 * x, "average": 1 - abs(2 * x - 1), "max": 2 * x - 1}
    return {f"{level}{what}": np.maximum(value, 0) for level, value in levels.items()}


def _local_weights(names: list[str], spread: float, count: int, rng) -> dict[str, np.ndarray]:
    """Two-ended sliders, the two sides of a face nearly alike, and one-ended ones, mostly at 0."""
    columns, shared, left = {}, {}, list(names)
    for name in names:
        other = _opposite(name, names)
        if name not in left or other is None:
            continue
        left = [n for n in left if n not in (name, other)]
        scale = spread / 3 if WHOLE.search(name) else spread
        folder, stem = name.split("/")
        draw = rng.normal(0, scale, count)
        if stem[:2] in ("l-", "r-"):
            draw = SIDE_SHARE * draw + shared.setdefault(stem[2:], rng.normal(0, scale, count))
        draw = np.clip(draw, -1, 1)
        columns[name], columns[other] = np.maximum(-draw, 0), np.maximum(draw, 0)
    for name in left:
        draw = np.minimum(abs(rng.normal(0, 0.35 * spread, count)), 1)
        columns[name] = np.where(rng.random(count) < 0.5, draw, 0)
    return columns


def _opposite(name: str, names: list[str]) -> str | None:
    for low, high in OPPOSITES:
        if name.endswith("-" + low) and (other := name.removesuffix(low) + high) in names:
            return other
    return None


def align_to_mean(shapes, mean, core, mirror) -> tuple[np.ndarray, np.ndarray]:
    """Generalized Procrustes analysis with scale on the core vertices; the mean kept symmetric."""
    for _ in range(3):
        scale, rotation, shift = similarity_alignment(shapes[:, core], mean[core])
        shapes = apply_similarity(scale, rotation, shift, shapes)
        fresh = shapes.mean(axis=0)
        fresh = (fresh + fresh[mirror] * [-1, 1, 1]) / 2
        s, r, t = similarity_alignment(fresh[core], mean[core])
        mean = apply_similarity(s, r, t, fresh)
        mean = (mean + mean[mirror] * [-1, 1, 1]) / 2
    return shapes, mean


def identity_basis(residuals, mirror, weights, components: int) -> tuple[np.ndarray, float]:
    """Principal components, each purely symmetric or purely antisymmetric, largest first.

    Args:
        residuals: (P, n, 3) shapes minus the mean, mm.
        mirror: (n,) mirror partner.
        weights: (n,) how much each vertex counts.
        components: how many to keep.

    Returns:
        (n, 3, components) mm per standard deviation, and the share of weighted variance kept.
    """
    reflected = residuals[:, mirror] * [-1, 1, 1]
    found, total = [], 0.0
    for part in ((residuals + reflected) / 2, (residuals - reflected) / 2):
        weighted = (part * weights[:, None]).reshape(len(part), -1)
        gram = weighted @ weighted.T / len(part)
        total += np.trace(gram)
        last = len(gram) - 1
        values, vectors = scipy.linalg.eigh(gram, subset_by_index=[last - components + 1, last])
        basis = np.einsum("pk,pnc->knc", vectors, part) / np.sqrt(len(part))
        found += [(value, column) for value, column in zip(values, basis, strict=True)]
    found.sort(key=lambda pair: -pair[0])
    basis = np.stack([column for _, column in found[:components]], axis=-1)
    flat = basis.reshape(-1, components)
    peak = flat[abs(flat).argmax(axis=0), range(components)]
    return basis * np.sign(peak), sum(value for value, _ in found[:components]) / total
