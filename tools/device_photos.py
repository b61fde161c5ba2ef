"""Photos in an accelerator's memory: drawn, blended, moved and recolored there (JAX).

A batch is made of groups (some photos each of some people) and of single photos. In a part of them
the face is mixed with another person's in a similar pose, bent to its landmarks: a new person, of
whom the recognizer that teaches has an opinion too. All photos of a group are mixed with photos of
one other person, by one share.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from keras_scnn.data.augment import UPRIGHT, Jitter
from keras_scnn.data.labels.recognizer import CHIP_LANDMARKS, CHIP_PADDING, CHIP_POINTS, CHIP_SIZE
from keras_scnn.data.sources.blends import EULER_WEIGHTS
from keras_scnn.geometry.landmarks68 import MIRROR68
from keras_scnn.parameters import POSE_SIZE
from pack_photos import CROP, FRAME, MARGIN

COARSE = 21  # points along an image at which bending is computed
BEND_REACH = 5.0  # px: standard deviation of the weights of the landmarks about a point
CANDIDATES = 48
SHARES = (0.3, 0.65)  # of the guest's look
LEAST_BLUR, BLUR_REACH = 0.05, 4  # px


@dataclass(frozen=True)
class BatchPlan:
    """people x photos in groups, then single photos; the share of both that is mixed."""

    people: int = 40
    photos: int = 4
    singles: int = 352
    mixed: float = 0.5
    mixed_groups: float = 0.6

    @property
    def grouped(self) -> int:
        return self.people * self.photos

    @property
    def size(self) -> int:
        return self.grouped + self.singles


def draw(key, photos: dict, plan: BatchPlan) -> dict:
    """Rows of hosts and guests (B,), shares (B,) of the guest's look, person numbers (B,)."""
    keys = jax.random.split(key)
    hosts, guests, shares = (
        jnp.concatenate([grouped, single])
        for grouped, single in zip(
            _draw_groups(keys[0], photos, plan), _draw_singles(keys[1], photos, plan), strict=True
        )
    )
    groups = jnp.repeat(jnp.arange(plan.people), plan.photos)
    persons = jnp.concatenate([groups, plan.people + jnp.arange(plan.singles)])
    shares = shares * photos["is_frontal"][hosts]
    return {"host": hosts, "guest": guests, "share": shares, "person": persons}


def _draw_groups(key, photos: dict, plan: BatchPlan):
    """Some photos each of some people; each with the guest's photo in the most similar pose."""
    keys = jax.random.split(key, 4)
    table, places = photos["of_person"], jnp.arange(photos["of_person"].shape[1])
    chosen = jax.random.choice(keys[0], len(table), (plan.people,), replace=False)
    order = jax.random.uniform(keys[1], (plan.people, len(places)))
    order = jnp.where(places < photos["count"][chosen][:, None], order, 2.0).argsort(axis=1)
    hosts = jnp.take_along_axis(table[chosen], order[:, : plan.photos], axis=1)
    others = (chosen + jax.random.randint(keys[2], (plan.people,), 1, len(table))) % len(table)
    pool = table[others]
    turned = pose_distance(photos, hosts[..., None], pool[:, None])
    known = places < photos["count"][others][:, None]
    nearest = jnp.where(known[:, None], turned, jnp.inf).argmin(-1)
    guests = jnp.take_along_axis(pool, nearest, axis=1)
    shares = jnp.repeat(_shares(keys[3], plan.people, plan.mixed_groups), plan.photos)
    return hosts.ravel(), guests.ravel(), shares


def _draw_singles(key, photos: dict, plan: BatchPlan):
    """Photos of anybody; each with that of somebody else, of some, in the most similar pose."""
    keys = jax.random.split(key, 3)
    at = jnp.searchsorted(photos["single_cdf"], jax.random.uniform(keys[0], (plan.singles,)))
    hosts = photos["single"][jnp.minimum(at, len(photos["single"]) - 1)]
    frontal = photos["frontal"]
    pool = frontal[jax.random.randint(keys[1], (plan.singles, CANDIDATES), 0, len(frontal))]
    turned = pose_distance(photos, hosts[:, None], pool)
    stranger = photos["identity"][pool] != photos["identity"][hosts][:, None]
    nearest = jnp.where(stranger, turned, jnp.inf).argmin(-1)
    guests = jnp.take_along_axis(pool, nearest[:, None], axis=1)[:, 0]
    return hosts, guests, _shares(keys[2], plan.singles, plan.mixed)


def _shares(key, count: int, mixed: float):
    """(count,) within ``SHARES`` for a part of ``mixed``, else 0."""
    keys = jax.random.split(key)
    share = jax.random.uniform(keys[0], (count,), minval=SHARES[0], maxval=SHARES[1])
    return share * (jax.random.uniform(keys[1], (count,)) < mixed)


def pose_distance(photos: dict, one, other):
    """Weighted difference of the Euler angles of rows that broadcast, degrees."""
    apart = jnp.abs(photos["euler"][one] - photos["euler"][other])
    return apart @ jnp.asarray(EULER_WEIGHTS)


def moves(key, photos: dict, drawn: dict, plan: BatchPlan):
    """(B, 2, 3) similarities from the standard crop to the network's input; some mirror."""
    size, count = CROP, plan.size
    keys = jax.random.split(key, 8)
    group = jnp.arange(count) < plan.grouped
    own = {k: jnp.where(group, getattr(UPRIGHT, k), getattr(Jitter(), k)) for k in vars(UPRIGHT)}
    points = photos["landmarks"][drawn["host"], :, :2]
    low, high = points.min(1), points.max(1)
    side = jnp.linalg.norm(high - low, axis=-1)
    zoom = jnp.where(side > 0.5 * size, size / side, 1.0)
    scale = zoom * jnp.exp(own["scale"] * jax.random.normal(keys[0], (count,)))
    wide = jax.random.uniform(keys[1], (count,), minval=-1) * own["wide_degrees"]
    any_angle = jax.random.uniform(keys[2], (count,), minval=-180, maxval=180)
    chance = jax.random.uniform(keys[3], (2, count))
    degrees = own["degrees"] * jax.random.normal(keys[4], (count,))
    degrees = jnp.where(chance[0] < own["wide"], wide, degrees)
    degrees = jnp.where(chance[1] < own["any_angle"], any_angle, degrees)
    c, s = scale * jnp.cos(jnp.deg2rad(degrees)), scale * jnp.sin(jnp.deg2rad(degrees))
    linear = jnp.stack([jnp.stack([c, -s], -1), jnp.stack([s, c], -1)], 1)
    shift = own["shift"][:, None] * size * jax.random.normal(keys[5], (count, 2))
    target = (size - 1) / 2 + shift
    column = target - jnp.einsum("bij,bj->bi", linear, (low + high) / 2)
    matrix = jnp.concatenate([linear, column[..., None]], -1)
    tossed = jax.random.uniform(keys[6], (count,)) < 0.5
    mirrored = tossed[drawn["person"]]  # all photos of a group or none
    flipped = jnp.array([[-1.0, 0], [0, 1]]) @ matrix + jnp.array([[0, 0, size - 1.0], [0, 0, 0]])
    return jnp.where(mirrored[:, None, None], flipped, matrix)


def invert(matrix):
    """The inverse of (B, 2, 3) affine maps."""
    (a, b), (c, d) = matrix[:, 0, :2].T, matrix[:, 1, :2].T
    inner = jnp.stack([jnp.stack([d, -b], -1), jnp.stack([-c, a], -1)], 1)
    inner = inner / (a * d - b * c)[:, None, None]
    return jnp.concatenate([inner, -inner @ matrix[:, :, 2:]], -1)


def chips(photos: dict, drawn: dict):
    """(B, 2, 3) from the standard crop to the square that dlib's recognizer wants to see."""
    wanted = (CHIP_POINTS + CHIP_PADDING) / (1 + 2 * CHIP_PADDING) * CHIP_SIZE - 0.5
    have = photos["landmarks"][drawn["host"]][:, CHIP_LANDMARKS, :2]
    center, middle = have.mean(1, keepdims=True), jnp.asarray(wanted.mean(0))
    a, b = have - center, jnp.asarray(wanted) - middle
    # As complex numbers, a similarity is a factor.
    power = (a**2).sum((1, 2))
    real = (a * b).sum((1, 2)) / power
    imaginary = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(1) / power
    rows = jnp.stack([real, -imaginary], -1), jnp.stack([imaginary, real], -1)
    linear = jnp.stack(rows, 1)
    return jnp.concatenate(
        [linear, (middle - jnp.einsum("bij,bj->bi", linear, center[:, 0]))[..., None]], -1
    )


def render(photos: dict, drawn: dict, matrix, size: int):
    """The blends (B, size, size, 3), 0 to 255, and whether each pixel is in the host's photo."""
    steps = jnp.linspace(0.0, size - 1, COARSE)
    grid = jnp.stack(jnp.meshgrid(steps, steps), -1).reshape(-1, 2)
    back = invert(matrix)
    coarse = grid @ back[:, :, :2].transpose(0, 2, 1) + back[:, None, :, 2]
    points = photos["landmarks"]
    bent = bend(coarse, points[drawn["host"], :, :2], points[drawn["guest"], :, :2])
    own, inside = look(photos, drawn["host"], _refine(coarse, size))
    other, _ = look(photos, drawn["guest"], _refine(bent, size))
    share = drawn["share"][:, None, None, None]
    return (1 - share) * own + share * other, inside


def _refine(coarse, size: int):
    """(B, COARSE * COARSE, 2) places to (B, size, size, 2), linear in between."""
    place = np.linspace(0, COARSE - 1, size)
    weight = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(COARSE)))
    weight = jnp.asarray(weight, jnp.float32)
    coarse = coarse.reshape(-1, COARSE, COARSE, 2)
    return jnp.einsum("yr,xc,brcd->byxd", weight, weight, coarse, precision=lax.Precision.HIGHEST)


def bend(places, before, after):
    """Where (B, M, 2) places go when landmarks (B, 68, 2) go from ``before`` to ``after``.

    The affine map of least squares, and what the landmarks nearby move beyond it.
    """
    center, middle = before.mean(1, keepdims=True), after.mean(1, keepdims=True)
    a, b = before - center, after - middle
    gram = jnp.einsum("bni,bnj->bij", a, a)
    gram = jnp.concatenate([gram, jnp.zeros_like(gram[..., :1])], -1)
    linear = jnp.einsum("bij,bnj,bnk->bik", invert(gram)[..., :2], a, b)
    rest = b - a @ linear
    apart = ((places[:, :, None] - before[:, None]) ** 2).sum(-1)
    weight = jax.nn.softmax(-apart / (2 * BEND_REACH**2), axis=-1)
    return (places - center) @ linear + middle + weight @ rest


def look(photos: dict, rows, places):
    """Colors (B, H, W, 3) float32 at places (B, H, W, 2) of the standard crops, linear between
    pixels; the photo's rim goes on outside of it. And whether each place is in the photo."""
    limits = photos["limits"][rows][:, None, None]
    places = places + MARGIN
    held = jnp.clip(places, limits[..., :2], limits[..., 2:])
    inside = (jnp.abs(places - held) < 0.5).all(-1, keepdims=True)
    first = jnp.floor(held)
    share = held - first
    x, y = jnp.moveaxis(first.astype(jnp.int32), -1, 0)
    right, below = jnp.minimum(x + 1, FRAME - 1), jnp.minimum(y + 1, FRAME - 1)
    flat, start = photos["frames"], (rows * FRAME**2)[:, None, None]
    total = 0.0
    for row, tall in ((y, 1 - share[..., 1:]), (below, share[..., 1:])):
        for column, wide in ((x, 1 - share[..., :1]), (right, share[..., :1])):
            packed = flat[start + row * FRAME + column]
            total += tall * wide * _unpack(packed)
    return total, inside


def _unpack(packed):
    parts = [(packed >> shift) & 255 for shift in (0, 8, 16)]
    return jnp.stack(parts, -1).astype(jnp.float32)


def move_labels(matrix, landmarks, vectors, mirrors):
    """Landmarks (B, 68, 4) and parameter vectors (B, P) after (B, 2, 3) similarities.

    Args:
        matrix, landmarks, vectors: see above.
        mirrors: of identity and expression, (K, K) and (L, L): ``mirroring.mirror_matrices``.
    """
    determinant = jnp.linalg.det(matrix[:, :, :2])
    scale, mirrored = jnp.sqrt(jnp.abs(determinant)), (determinant < 0)[:, None]
    landmarks = jnp.where(mirrored[..., None], landmarks[:, MIRROR68], landmarks)
    turned = landmarks[..., :2] @ matrix[:, :, :2].transpose(0, 2, 1) + matrix[:, None, :, 2]
    depth = landmarks[..., 2:3] * scale[:, None, None]
    landmarks = jnp.concatenate([turned, depth, landmarks[..., 3:]], -1)
    pose = vectors[:, :POSE_SIZE].reshape(-1, 3, 4)
    plane = matrix[:, :, :2] @ pose[:, :2]
    plane = plane.at[:, :, 3].add(matrix[:, :, 2])
    pose = jnp.concatenate([plane, pose[:, 2:] * scale[:, None, None]], 1)
    pose = jnp.where(mirrored[..., None], pose * jnp.array([-1.0, 1, 1, 1]), pose)
    parts, start = [pose.reshape(-1, POSE_SIZE)], POSE_SIZE
    for matrix_of in mirrors:
        part = vectors[:, start : start + len(matrix_of)]
        parts.append(jnp.where(mirrored, part @ matrix_of.T, part))
        start += len(matrix_of)
    return landmarks, jnp.concatenate(parts, -1)


def recolor(key, images, inside):
    """Images (B, S, S, 3) gray, blurred, brighter, noisy or partly hidden, each as it comes.

    Args:
        key: of the random numbers.
        images: 0 to 255.
        inside: (B, S, S, 1) whether a pixel is in the photo; outside it is black in a third.
    """
    keys = iter(jax.random.split(key, 12))

    def some(low=0.0, high=1.0):
        return jax.random.uniform(next(keys), (len(images), 1, 1, 1), minval=low, maxval=high)

    images = images * jnp.where(some() < 0.33, inside, 1.0)
    gray = images @ jnp.array([0.299, 0.587, 0.114])
    images = jnp.where(some() < 0.2, gray[..., None], images)
    images = _blur(images, jnp.where(some() < 0.25, some(0.4, 1.8), LEAST_BLUR))
    normal = jax.random.normal(next(keys), (len(images), 1, 1, 5))
    gain = jnp.exp(0.15 * normal[..., :1] + 0.06 * normal[..., 1:4])
    images = jnp.clip(images * gain + 14 * normal[..., 4:], 0, 255)
    noise = jax.random.normal(next(keys), images.shape)
    images = images + jnp.where(some() < 0.5, some(0, 10), 0.0) * noise
    images = jnp.where(some() < 0.25, _hide(next(keys), images), images)
    return jnp.clip(images, 0, 255)


def _hide(key, images):
    """Each image with a rectangle of one color somewhere."""
    count, size = images.shape[:2]
    keys = jax.random.split(key, 3)
    extent = size * jax.random.uniform(keys[0], (count, 2), minval=0.1, maxval=0.42)
    first = jax.random.uniform(keys[1], (count, 2)) * (size - extent)
    place = jnp.arange(size)[:, None]
    hidden = (place >= first[:, None]) & (place < (first + extent)[:, None])  # (B, S, 2)
    hidden = hidden[:, :, None, :1] & hidden[:, None, :, 1:]
    color = jax.random.uniform(keys[2], (count, 1, 1, 3), maxval=255)
    return jnp.where(hidden, color, images)


def _blur(images, sigma):
    """Gaussian blur by sigma (B, 1, 1, 1) px; what is outside is as the rim."""
    places = np.arange(-BLUR_REACH, BLUR_REACH + 1)
    weight = jnp.exp(-(places**2) / (2 * sigma**2))
    weight = jnp.moveaxis(weight / weight.sum(-1, keepdims=True), -1, 0)[..., None]
    for axis in (1, 2):
        pad = [(0, 0)] * 4
        pad[axis] = (BLUR_REACH, BLUR_REACH)
        wide, size = jnp.pad(images, pad, mode="edge"), images.shape[axis]
        parts = [lax.slice_in_dim(wide, i, i + size, axis=axis) for i in range(len(places))]
        images = sum(w * part for w, part in zip(weight, parts, strict=True))
    return images
