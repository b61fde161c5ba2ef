"""Random people from MakeHuman's sliders, and the identity basis that their variation spans.

It contains no scan of a person: sex, age, origin, muscle and weight ("macros") and about 150 local
sliders are drawn at random. Women and men also differ in local sliders, since MakeHuman's macros
hardly show the differences of real faces (Farkas, "Anthropometry of the Head and Face", 1994):
brow, nose, lips, jaw and chin. The spread of the local sliders was chosen by eye: at full spread
the faces are monstrous.
"""

from __future__ import annotations

import itertools
import re
from typing import NamedTuple

import numpy as np
import scipy.linalg

from keras_scnn.geometry.alignment import apply_similarity, similarity_alignment
from makehuman import HeadData

SPREAD = {
    "head": 0.12, "nose": 0.15, "mouth": 0.15, "eyes": 0.15, "chin": 0.15, "cheek": 0.15,
    "forehead": 0.15, "eyebrows": 0.15, "ears": 0.12, "asym": 0.07, "neck": 0.10,
}  # fmt: skip
# Difference of women from the mean of both sexes, towards a slider's second end; men: the opposite.
FEMALE = {
    "eyes/eye-scale": 0.20, "eyes/eye-height2": 0.12, "eyebrows/eyebrows-trans-forward": -0.24,
    "eyebrows/eyebrows-trans-up": 0.16, "eyebrows/eyebrows-angle-up": 0.12,
    "forehead/forehead-nubian": 0.10, "chin/chin-width": -0.22, "chin/chin-prominent": -0.12,
    "chin/chin-height": -0.10, "chin/chin-bones": -0.22, "chin/chin-jaw-drop": -0.20,
    "nose/nose-scale-horiz": -0.12, "nose/nose-scale-depth": -0.10, "nose/nose-scale-vert": -0.06,
    "nose/nose-hump": -0.12, "nose/nose-curve-convex": -0.12, "nose/nose-point-up": 0.08,
    "nose/nose-volume": -0.06, "nose/nose-width1": -0.10, "mouth/mouth-upperlip-volume": 0.12,
    "mouth/mouth-lowerlip-volume": 0.12, "mouth/mouth-upperlip-height": 0.10,
    "mouth/mouth-scale-horiz": -0.10, "cheek/cheek-bones": 0.16, "neck/neck-scale-horiz": -0.12,
}  # fmt: skip
# MakeHuman's midpoint between the sexes looks male; with this shift towards women it looks neutral.
FEMALE_SHIFT = 0.3
# Sliders that move a whole part get a third of the spread, since alignment removes such motion.
WHOLE = re.compile(r"(nose|mouth)-trans")
LEFT_OUT = re.compile(
    r"head-trans|head-back|head-angle|ear-shape|neck-trans|neck-back|measure|breast|trunk"
    r"|asym.*(ear|top)"
)
OPPOSITES = (
    ("decr", "incr"), ("down", "up"), ("backward", "forward"), ("in", "out"),
    ("concave", "convex"), ("compress", "uncompress"), ("l", "r"),
)  # fmt: skip
RACES, SEXES, AGES = ("african", "asian", "caucasian"), ("female", "male"), (
    "baby", "child", "young", "old",
)  # fmt: skip
AGE_YEARS = (1.0, 10.0, 25.0, 90.0)  # of MakeHuman's four age groups
CHILDREN, CHILD_YEARS = 0.2, (6.0, 16.0)
SIDE_SHARE = 0.25  # difference between the two sides of a face, as a share of the slider's spread


class People(NamedTuple):
    """Sex and age of each of P people.

    Attributes:
        male: (P,) 0 is a woman, 1 a man; values lie between these and slightly beyond.
        years: (P,) age.
    """

    male: np.ndarray
    years: np.ndarray

    @property
    def is_adult(self) -> np.ndarray:
        return self.years > CHILD_YEARS[1]


def sample_people(data: HeadData, count: int, rng: np.random.Generator):
    """Slider weights of random people, a fifth of them children.

    Returns:
        names of T targets, (count, T) weights, and the people.
    """
    male = rng.normal(rng.choice([0.04, 0.96], count), 0.12)
    adult = 25 + 65 * 0.9 * rng.beta(1.1, 2.6, count)
    child = rng.uniform(*CHILD_YEARS, count)
    people = People(male, np.where(rng.random(count) < CHILDREN, child, adult))
    columns = _macro_weights(people, rng)
    feminine = (1 + FEMALE_SHIFT - 2 * male) * np.interp(people.years, [6, 12, 18], [0.25, 0.4, 1])
    for folder, spread in SPREAD.items():
        names = [n for n in data.names(folder) if not LEFT_OUT.search(n)]
        columns |= _local_weights(names, spread, feminine, rng)
    return list(columns), np.stack(list(columns.values()), axis=1), people


def _macro_weights(people: People, rng) -> dict[str, np.ndarray]:
    count = len(people.years)
    race = rng.dirichlet([0.6] * 3, count)
    sex = {"female": 1 - people.male, "male": people.male}
    age = {a: np.interp(people.years, AGE_YEARS, np.eye(4)[i]) for i, a in enumerate(AGES)}
    muscle = _three_levels(rng.normal(0.42 + 0.16 * people.male, 0.15), "muscle")
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


def _local_weights(names: list[str], spread: float, feminine, rng) -> dict[str, np.ndarray]:
    """Columns of two-ended sliders, nearly equal on both sides of a face, and of one-ended ones.

    The latter are 0 for half of the people.
    """
    columns, shared, left, count = {}, {}, list(names), len(feminine)
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
            stem = stem[2:]
        draw = np.clip(draw + FEMALE.get(_slider(folder, stem, other), 0) * feminine, -1, 1)
        columns[name], columns[other] = np.maximum(-draw, 0), np.maximum(draw, 0)
    for name in left:
        draw = np.minimum(abs(rng.normal(0, 0.35 * spread, count)), 1)
        columns[name] = np.where(rng.random(count) < 0.5, draw, 0)
    return columns


def _slider(folder: str, stem: str, other: str) -> str:
    """The slider's name in ``FEMALE``, which ends in its second end unless that is "incr"."""
    start, end = stem.rsplit("-", 1)[0], other.rsplit("-", 1)[1]
    return f"{folder}/{start}" + ("" if end == "incr" else f"-{end}")


def _opposite(name: str, names: list[str]) -> str | None:
    for low, high in OPPOSITES:
        if name.endswith("-" + low) and (other := name.removesuffix(low) + high) in names:
            return other
    return None


def align_to_mean(shapes, mean, core, mirror, adult) -> tuple[np.ndarray, np.ndarray]:
    """Generalized Procrustes analysis with scale on the core vertices.

    The mean is that of the adults, and is kept symmetric.
    """
    for _ in range(3):
        scale, rotation, shift = similarity_alignment(shapes[:, core], mean[core])
        shapes = apply_similarity(scale, rotation, shift, shapes)
        fresh = shapes[adult].mean(axis=0)
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
        weights: (n,) of the vertices.
        components: number to keep.

    Returns:
        (n, 3, components) mm per standard deviation, and the share of weighted variance kept.
    """
    reflected = residuals[:, mirror] * [-1, 1, 1]
    result, total = [], 0.0
    for part in ((residuals + reflected) / 2, (residuals - reflected) / 2):
        weighted = (part * weights[:, None]).reshape(len(part), -1)
        gram = weighted @ weighted.T / len(part)
        total += np.trace(gram)
        last = len(gram) - 1
        values, vectors = scipy.linalg.eigh(gram, subset_by_index=[last - components + 1, last])
        basis = np.einsum("pk,pnc->knc", vectors, part) / np.sqrt(len(part))
        result += [(value, column) for value, column in zip(values, basis, strict=True)]
    result.sort(key=lambda pair: -pair[0])
    basis = np.stack([column for _, column in result[:components]], axis=-1)
    flat = basis.reshape(-1, components)
    peak = flat[abs(flat).argmax(axis=0), range(components)]
    return basis * np.sign(peak), sum(value for value, _ in result[:components]) / total
