"""Batches made in an accelerator's memory: photos drawn, blended, moved and recolored (JAX).

A batch consists of groups (several photos of each of several people) and single photos. In some of
them the face of the photo (the host) is blended with another person's in a similar pose (the
guest), warped to the host's landmarks: a new person, whom the recognizer can embed too. All photos
of a group are blended with photos of one other person, with the same share.

The functions take ``photos``, a dictionary of arrays on the device (see ``labels.Supply``), as an
argument, so that a compiled program does not hold a copy, and ``drawn``, which ``draw`` returns.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from keras_scnn.data.augment import SMALL_BOX, UPRIGHT, Jitter
from keras_scnn.data.sources.blends import GRID, pose_distance
from keras_scnn.geometry.bending import REACH, bend, grid_points, interpolate_grid
from keras_scnn.geometry.similarities import invert
from keras_scnn.models.recognizers.chips import Chip

CANDIDATES = 48  # possible guests, of which the one in the most similar pose is chosen
SHARES = (0.3, 0.65)  # range of the guest's share of the blend
MIN_BLUR, BLUR_REACH = 0.05, 4  # px


@dataclass(frozen=True)
class BatchPlan:
    """The composition of a batch.

    Attributes:
        people, photos: number of people in groups, and of photos of each.
        singles: number of single photos, after the groups.
        blend_groups, blend_singles: shares of groups and single photos that are blended.
        size, margin: of the crop, and of the photo around it on each side, px.
    """

    people: int
    photos: int
    singles: int
    blend_groups: float
    blend_singles: float
    size: int
    margin: int

    @property
    def grouped(self) -> int:
        """Photos in groups; they come first in a batch."""
        return self.people * self.photos

    @property
    def count(self) -> int:
        """Photos in a batch, B."""
        return self.grouped + self.singles

    @property
    def frame(self) -> int:
        """Width and height of a photo on the device, px."""
        return self.size + 2 * self.margin


def draw(key: jax.Array, photos: dict, plan: BatchPlan) -> dict:
    """Rows of hosts and guests (B,), the guests' shares (B,), and person numbers (B,)."""
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


def _draw_groups(key: jax.Array, photos: dict, plan: BatchPlan):
    """Draw photos of people; each gets the photo in the most similar pose of the group's guest."""
    keys = jax.random.split(key, 4)
    table, places = photos["of_person"], jnp.arange(photos["of_person"].shape[1])
    chosen = jax.random.choice(keys[0], len(table), (plan.people,), replace=False)
    shares = _shares(keys[3], plan.people, plan.blend_groups)
    order = jax.random.uniform(keys[1], (plan.people, len(places)))
    # Turned faces are not blended, so in blended groups they are chosen last.
    order += (shares > 0)[:, None] & ~photos["is_frontal"][table[chosen]]
    order = jnp.where(places < photos["count"][chosen][:, None], order, 3.0).argsort(axis=1)
    hosts = jnp.take_along_axis(table[chosen], order[:, : plan.photos], axis=1)
    others = (chosen + jax.random.randint(keys[2], (plan.people,), 1, len(table))) % len(table)
    pool = table[others]
    turned = _pose_distance(photos, hosts[..., None], pool[:, None])
    usable = (places < photos["count"][others][:, None]) & photos["is_frontal"][pool]
    nearest = jnp.where(usable[:, None], turned, jnp.inf).argmin(-1)
    guests = jnp.take_along_axis(pool, nearest, axis=1)
    shares *= usable.any(axis=1)
    return hosts.ravel(), guests.ravel(), jnp.repeat(shares, plan.photos)


def _draw_singles(key: jax.Array, photos: dict, plan: BatchPlan):
    """Draw single photos; each gets, of some other people's, the one in the most similar pose."""
    keys = jax.random.split(key, 3)
    at = jnp.searchsorted(photos["single_cdf"], jax.random.uniform(keys[0], (plan.singles,)))
    hosts = photos["single"][jnp.minimum(at, len(photos["single"]) - 1)]
    frontal = photos["frontal"]
    pool = frontal[jax.random.randint(keys[1], (plan.singles, CANDIDATES), 0, len(frontal))]
    turned = _pose_distance(photos, hosts[:, None], pool)
    stranger = photos["identity"][pool] != photos["identity"][hosts][:, None]
    nearest = jnp.where(stranger, turned, jnp.inf).argmin(-1)
    guests = jnp.take_along_axis(pool, nearest[:, None], axis=1)[:, 0]
    return hosts, guests, _shares(keys[2], plan.singles, plan.blend_singles)


def _shares(key: jax.Array, count: int, blended: float):
    """(count,) guests' shares: within ``SHARES`` with probability ``blended``, else 0."""
    keys = jax.random.split(key)
    share = jax.random.uniform(keys[0], (count,), minval=SHARES[0], maxval=SHARES[1])
    return share * (jax.random.uniform(keys[1], (count,)) < blended)


def _pose_distance(photos: dict, one: jax.Array, other: jax.Array):
    """``blends.pose_distance`` of rows, which are broadcast."""
    return pose_distance(photos["euler"][one], photos["euler"][other])


def moves(key: jax.Array, photos: dict, drawn: dict, plan: BatchPlan):
    """Random similarities (B, 2, 3) from the crop to the network's input; half of them mirror.

    Up to random changes they give the standard crop of the landmarks, as ``data.augment`` does.
    """
    keys = jax.random.split(key, 8)
    group = jnp.arange(plan.count) < plan.grouped
    jitter = {k: jnp.where(group, getattr(UPRIGHT, k), getattr(Jitter(), k)) for k in vars(UPRIGHT)}
    points = photos["landmarks"][drawn["host"], :, :2]
    low, high = points.min(1), points.max(1)
    linear = _turn_and_zoom(keys, jitter, jnp.linalg.norm(high - low, axis=-1), plan.size)
    shift = jitter["shift"][:, None] * plan.size * jax.random.normal(keys[5], (plan.count, 2))
    column = (plan.size - 1) / 2 + shift - jnp.einsum("bij,bj->bi", linear, (low + high) / 2)
    matrix = jnp.concatenate([linear, column[..., None]], -1)
    tossed = jax.random.uniform(keys[6], (plan.count,)) < 0.5
    mirrored = tossed[drawn["person"]]  # all photos of a group, or none
    flipped = jnp.array([[-1.0, 0], [0, 1]]) @ matrix
    flipped = flipped + jnp.array([[0, 0, plan.size - 1.0], [0, 0, 0]])
    return jnp.where(mirrored[:, None, None], flipped, matrix)


def _turn_and_zoom(keys: jax.Array, jitter: dict, side: jax.Array, size: int):
    """(B, 2, 2) rotations times scales; ``side`` (B,) is the diagonal of the landmarks' box."""
    zoom = jnp.where(side > SMALL_BOX * size, size / side, 1.0)
    scale = zoom * jnp.exp(jitter["scale"] * jax.random.normal(keys[0], side.shape))
    wide = jax.random.uniform(keys[1], side.shape, minval=-1) * jitter["wide_degrees"]
    any_angle = jax.random.uniform(keys[2], side.shape, minval=-180, maxval=180)
    chance = jax.random.uniform(keys[3], (2, *side.shape))
    degrees = jitter["degrees"] * jax.random.normal(keys[4], side.shape)
    degrees = jnp.where(chance[0] < jitter["wide"], wide, degrees)
    degrees = jnp.where(chance[1] < jitter["any_angle"], any_angle, degrees)
    c, s = scale * jnp.cos(jnp.deg2rad(degrees)), scale * jnp.sin(jnp.deg2rad(degrees))
    return jnp.stack([jnp.stack([c, -s], -1), jnp.stack([s, c], -1)], 1)


def chips(photos: dict, drawn: dict, chip: Chip):
    """(B, 2, 3) similarities from the crop to the aligned square that a recognizer expects."""
    landmarks = photos["landmarks"][drawn["host"]][..., :2]
    have = jnp.einsum("pl,bli->bpi", jnp.asarray(chip.landmarks, jnp.float32), landmarks)
    center, middle = have.mean(1, keepdims=True), jnp.asarray(chip.points.mean(0))
    a, b = have - center, jnp.asarray(chip.points) - middle
    # In complex numbers, a rotation with scaling is a factor.
    power = (a**2).sum((1, 2))
    real = (a * b).sum((1, 2)) / power
    imaginary = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(1) / power
    rows = jnp.stack([real, -imaginary], -1), jnp.stack([imaginary, real], -1)
    linear = jnp.stack(rows, 1)
    return jnp.concatenate(
        [linear, (middle - jnp.einsum("bij,bj->bi", linear, center[:, 0]))[..., None]], -1
    )


def render_blends(photos: dict, drawn: dict, matrix: jax.Array, plan: BatchPlan, size: int):
    """Images of the blends, each under its similarity.

    Args:
        photos, drawn: see the module.
        matrix: (B, 2, 3) from the crop to the image.
        plan: of the batch.
        size: of the image, px.

    Returns:
        (B, size, size, 3) 0 to 255, and (B, size, size, 1) whether each pixel is in the host's
        photo.
    """
    grid, back = grid_points(size, GRID), invert(matrix, jnp)
    coarse = grid @ back[:, :, :2].transpose(0, 2, 1) + back[:, None, :, 2]
    points = photos["landmarks"][..., :2]
    before, after = points[drawn["host"]], points[drawn["guest"]]
    bent = bend(coarse, before, after, REACH * plan.size, jnp)
    own, inside = sample(photos, drawn["host"], interpolate_grid(coarse, size, jnp), plan)
    other, _ = sample(photos, drawn["guest"], interpolate_grid(bent, size, jnp), plan)
    share = drawn["share"][:, None, None, None]
    return (1 - share) * own + share * other, inside


def sample(photos: dict, rows: jax.Array, places: jax.Array, plan: BatchPlan):
    """Colors of photos at places between their pixels, bilinear; outside, the edge is repeated.

    Args:
        photos: see the module.
        rows: (B,) of the photos.
        places: (B, H, W, 2) x, y in px of the crops.
        plan: of the batch.

    Returns:
        (B, H, W, 3) float32, and (B, H, W, 1) whether each place is in the photo.
    """
    limits = photos["limits"][rows][:, None, None]
    places = places + plan.margin
    held = jnp.clip(places, limits[..., :2], limits[..., 2:])
    inside = (jnp.abs(places - held) < 0.5).all(-1, keepdims=True)
    first = jnp.floor(held)
    share = held - first
    x, y = jnp.moveaxis(first.astype(jnp.int32), -1, 0)
    right, below = jnp.minimum(x + 1, plan.frame - 1), jnp.minimum(y + 1, plan.frame - 1)
    flat, start = photos["frames"], (rows * plan.frame**2)[:, None, None]
    total = 0.0
    for row, tall in ((y, 1 - share[..., 1:]), (below, share[..., 1:])):
        for column, wide in ((x, 1 - share[..., :1]), (right, share[..., :1])):
            total += tall * wide * _unpack(flat[start + row * plan.frame + column])
    return total, inside


def _unpack(packed: jax.Array):
    parts = [(packed >> shift) & 255 for shift in (0, 8, 16)]
    return jnp.stack(parts, -1).astype(jnp.float32)


def recolor(key: jax.Array, images: jax.Array, inside: jax.Array):
    """Images (B, S, S, 3) made gray, blurred, brighter, noisy or partly hidden, each at random.

    Args:
        key: random key.
        images: 0 to 255.
        inside: (B, S, S, 1) whether a pixel is in the photo; in a third of the images those
            outside are made black.
    """
    keys = iter(jax.random.split(key, 12))

    def some(low=0.0, high=1.0):
        return jax.random.uniform(next(keys), (len(images), 1, 1, 1), minval=low, maxval=high)

    images = images * jnp.where(some() < 0.33, inside, 1.0)
    gray = images @ jnp.array([0.299, 0.587, 0.114])
    images = jnp.where(some() < 0.2, gray[..., None], images)
    images = _blur(images, jnp.where(some() < 0.25, some(0.4, 1.8), MIN_BLUR))
    normal = jax.random.normal(next(keys), (len(images), 1, 1, 5))
    gain = jnp.exp(0.15 * normal[..., :1] + 0.06 * normal[..., 1:4])
    images = jnp.clip(images * gain + 14 * normal[..., 4:], 0, 255)
    noise = jax.random.normal(next(keys), images.shape)
    images = images + jnp.where(some() < 0.5, some(0, 10), 0.0) * noise
    images = jnp.where(some() < 0.25, _hide(next(keys), images), images)
    return jnp.clip(images, 0, 255)


def _hide(key: jax.Array, images: jax.Array):
    """Each image with a rectangle of a random color at a random place."""
    count, size = images.shape[:2]
    keys = jax.random.split(key, 3)
    extent = size * jax.random.uniform(keys[0], (count, 2), minval=0.1, maxval=0.42)
    first = jax.random.uniform(keys[1], (count, 2)) * (size - extent)
    place = jnp.arange(size)[:, None]
    hidden = (place >= first[:, None]) & (place < (first + extent)[:, None])  # (B, S, 2)
    hidden = hidden[:, :, None, :1] & hidden[:, None, :, 1:]
    color = jax.random.uniform(keys[2], (count, 1, 1, 3), maxval=255)
    return jnp.where(hidden, color, images)


def _blur(images: jax.Array, sigma: jax.Array):
    """Gaussian blur by sigma (B, 1, 1, 1) px; outside, the edge is repeated."""
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
