"""Textures of faces from photos; see ``keras_scnn.texturing``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from keras_scnn.geometry.colors import lab_from_linear, light_from_lab, srgb_from_linear
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.settings import typed
from keras_scnn.texturing.atlas import EYES, EYES_APART, Atlas, eyes_apart, texel_of
from keras_scnn.texturing.blending import blend_seamlessly, gamma_decode, gamma_encode
from keras_scnn.texturing.eyes import EyeColors, default_eyes, eye_share, find_eyes
from keras_scnn.texturing.light import estimate_light, shading
from keras_scnn.texturing.mouth import MouthColors, find_mouth, teeth_share
from keras_scnn.texturing.painting import paint_plain
from keras_scnn.texturing.skin import UNKNOWN, SkinAndHair, find_colors
from keras_scnn.texturing.views import View, check_posed, photo_colors, view_of

LEAST_SIZE, MOST_SIZE = 512, 2048
MOST_COLUMNS = 32_766  # limit of OpenCV's remap
UNLIKE = 0.15  # of gamma-encoded light: texels that differ more from the best photo count as hidden
BEST = 4  # exponent of a view's sharpness, so that the best photo at a texel dominates


@dataclass(frozen=True, eq=False)
class PosedPhoto:
    """A photo and the face in it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        posed: (N, 3) vertices in the photo: px and depth, image frame.
        hidden: (H, W) bool, where something hides the face; None if unknown.
    """

    image: np.ndarray
    posed: np.ndarray
    hidden: np.ndarray | None = None


def photo_texture(
    model: MorphableModel,
    image: np.ndarray,
    posed: np.ndarray,
    baked: bool = False,
    hidden: np.ndarray | None = None,
) -> np.ndarray:
    """Texture of a face in a photo.

    Args:
        model: with uv, which must be symmetric about u = 0.5 if the model has mirror partners.
        image: (H, W, 3) uint8 RGB.
        posed: (N, 3) vertices in the photo: px and depth, image frame.
        baked: with the photo's lighting; False gives the skin's own colors, to be lit in rendering.
        hidden: (H, W) bool, where hair, hands or glasses hide the face, as from a segmentation
            network; None estimates it from the colors alone.

    Returns:
        (S, S, 3) uint8 RGB, first row at v = 1; S is 512, 1024 or 2048, by the face's size.

    Raises:
        ValueError: the model has no uv, the image is not a photo, or the vertices or the hidden
            pixels do not match it.
    """
    check_posed(model, image, posed, hidden)
    photo = PosedPhoto(image, posed, hidden)
    return person_texture(model, [photo], texture_size(model, posed), baked)


def person_texture(
    model: MorphableModel,
    photos: Iterable[PosedPhoto],
    size: int = LEAST_SIZE,
    baked: bool = False,
) -> np.ndarray:
    """One texture from all photos of a person: at each texel the photos that show it best.

    Args:
        model: with uv, as for ``photo_texture``.
        photos: the best one first, which gives the person's colors (and the lighting of a baked
            texture): the others are adapted to its skin color. Only one is held in memory at a
            time.
        size: S, 512 to 2048; see ``texture_size``.
        baked: with the first photo's lighting.

    Returns:
        (S, S, 3) uint8 RGB, first row at v = 1.

    Raises:
        ValueError: as for ``photo_texture``, or the size is out of range.
    """
    typed(baked, bool, "baked")
    if not LEAST_SIZE <= size <= MOST_SIZE:
        raise ValueError(f"size is {size}; a texture has {LEAST_SIZE} to {MOST_SIZE} texels a side")
    atlas = Atlas.of(model, size)
    layers = (_layer(atlas, photo) for photo in photos)
    first, code, share = _best_views(atlas, (layer for layer in layers if layer is not None))
    colors = UNKNOWN, default_eyes(UNKNOWN.skin), MouthColors()
    if first is not None:
        colors = first.person, first.eyes, first.mouth
    light = gamma_decode(
        _over_plain(atlas, gamma_encode(paint_plain(atlas, *colors)), code, share, baked)
    )
    if baked and first is not None:
        light *= _at_size(first.shade, size)
    texture = (255 * srgb_from_linear(light) + 0.5).astype(np.uint8)
    return atlas.gutter_filled(texture)


def seen_texture(model: MorphableModel, image: np.ndarray, posed: np.ndarray) -> np.ndarray:
    """A texture of everything that a photo shows on the face, hair and hands included.

    Args:
        model: with uv.
        image: (H, W, 3) uint8 RGB.
        posed: (N, 3) vertices in the photo: px and depth, image frame.

    Returns:
        (512, 512, 3) uint8 RGB, first row at v = 1, with the photo's lighting: hidden skin is taken
        from the other side, eyes and mouth are whatever the photo has in their place.

    Raises:
        ValueError: as for ``photo_texture``.
    """
    check_posed(model, image, posed)
    atlas = Atlas.of(model, LEAST_SIZE)
    view = view_of(atlas, image, posed)
    code, skin = gamma_encode(view.color), atlas.skin
    known = code[skin & (view.seen > 0.5)]
    plain = np.broadcast_to(np.median(known, axis=0) if len(known) else 0.5, code.shape)
    share = np.where(skin, view.seen, 1)
    picture = _over_plain(atlas, np.float32(plain), code, share, baked=True)
    picture = np.where(skin[..., None], picture, code)
    return atlas.gutter_filled(
        (255 * srgb_from_linear(gamma_decode(picture)) + 0.5).astype(np.uint8)
    )


def _over_plain(atlas: Atlas, plain, code, share, baked: bool) -> np.ndarray:
    """Photos over their mirror image over a plain face; eyes and mouth are not mirrored.

    Albedo is limited to 1, except in a baked texture, where the highlights need more.
    """
    skin, picture = atlas.skin, plain
    code = code if baked else np.minimum(code, 1)
    if not share.any():
        return plain
    if atlas.model.mirror is not None:
        mirrored = code[:, ::-1], np.ascontiguousarray(share[:, ::-1] * skin)
        picture = blend_seamlessly(picture, *mirrored, skin)
    eyes, teeth = np.isin(atlas.region, EYES)[..., None], atlas.teeth
    if (share * teeth).any():
        plain = np.where(
            teeth[..., None], blend_seamlessly(plain, code, share * teeth, teeth), plain
        )
    picture = np.where(skin[..., None], blend_seamlessly(picture, code, share * skin, skin), plain)
    return np.where(eyes, plain + share[..., None] * (code - plain), picture)


def texture_size(model: MorphableModel, posed: np.ndarray) -> int:
    """512, 1024 or 2048: texels per side that keep the photo's detail of posed vertices (N, 3)."""
    texels = eyes_apart(model, texel_of(model, LEAST_SIZE))
    wanted = LEAST_SIZE * eyes_apart(model, posed) / max(texels, 1e-6)
    sizes = LEAST_SIZE, 2 * LEAST_SIZE, MOST_SIZE
    return next((size for size in sizes if wanted <= 1.2 * size), MOST_SIZE)


def vertex_colors(model: MorphableModel, texture: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 RGB: the texture at each vertex; ValueError if the model has no uv."""
    places = np.float32(texel_of(model, texture.shape[0]))
    border = cv2.BORDER_REPLICATE
    colors = [
        cv2.remap(texture, x[None], y[None], cv2.INTER_LINEAR, borderMode=border)[0]
        for x, y in (p.T for p in np.array_split(places, len(places) // MOST_COLUMNS + 1))
    ]
    return np.concatenate(colors)


@dataclass(frozen=True, eq=False)
class _Layer:
    """A photo on the map, with its lighting removed.

    Attributes:
        code: (S, S, 3) float32 albedo, gamma-encoded for blending.
        share: (S, S) float32, 0 to 1: confidence that it shows the person.
        sharpness: (S, S) float32: pixels of the photo per mm of skin, at the open face model's
            size.
        shade: (A, A, 3) irradiance, at the size of analysis, A = ``LEAST_SIZE``.
        person, eyes, mouth: the person's colors, estimated from the photo.
    """

    code: np.ndarray
    share: np.ndarray
    sharpness: np.ndarray
    shade: np.ndarray
    person: SkinAndHair
    eyes: EyeColors
    mouth: MouthColors


def _layer(atlas: Atlas, photo: PosedPhoto) -> _Layer | None:
    """The layer of a photo; None if no skin is seen. Light and skin come from the least size."""
    check_posed(atlas.model, photo.image, photo.posed, photo.hidden)
    small = Atlas.of(atlas.model, LEAST_SIZE)
    view = view_of(small, photo.image, photo.posed, photo.hidden)
    found = _person_and_light(small, view)
    if found is None:
        return None
    person, shade = found
    albedo = view.color / shade
    eyes = find_eyes(small, albedo, view.seen, person.skin)
    share = person.keep + eye_share(small, albedo, view.seen, person)
    mouth = find_mouth(small, photo.image, photo.posed, view, shade, person.skin)
    if mouth.teeth is not None:
        share += teeth_share(small, albedo, view.seen, person.skin)
    color = view.color
    if atlas is not small:
        color = photo_colors(atlas, photo.image, photo.posed)
    px_per_mm = np.float32(eyes_apart(atlas.model, photo.posed) / EYES_APART)
    size = atlas.size
    return _Layer(
        gamma_encode(color / _at_size(shade, size)),
        _at_size(share, size) * atlas.mask,
        _at_size(np.maximum(view.normals[..., 2], 0) * px_per_mm, size),
        shade,
        person,
        eyes,
        mouth,
    )


def _person_and_light(atlas: Atlas, view: View) -> tuple[SkinAndHair, np.ndarray] | None:
    """Light from texels that are skin by position, then skin by color, then both once more."""
    zones, shade = atlas.zones, np.ones_like(view.color)
    plain = zones.face & ~zones.features & ~zones.beard
    weight = view.seen * np.where(zones.cheeks, 1, 0.3) * plain
    person = None
    for _ in range(2):
        shade = shading(estimate_light(view.color, view.normals, weight), view.normals)
        person = find_colors(atlas, lab_from_linear(view.color / shade), view.seen)
        if person is None:
            return None
        bare = zones.face & ~zones.features
        weight = person.keep * (bare if person.beard is None else bare & ~zones.beard)
    assert person is not None  # the loop ran
    return person, shade


def _best_views(
    atlas: Atlas, layers: Iterable[_Layer]
) -> tuple[_Layer | None, np.ndarray, np.ndarray]:
    """The first layer, and colors (S, S, 3) and shares (S, S) of all; None and zeros for none."""
    side = (atlas.size, atlas.size)
    total, weights = np.zeros((*side, 3), np.float32), np.full(side, 1e-12, np.float32)
    share, first = np.zeros(side, np.float32), None
    for layer in layers:
        first = first or layer
        skins = [light_from_lab(each.person.skin.center) for each in (first, layer)]
        gain = np.maximum(skins[0], 1e-3) / np.maximum(skins[1], 1e-3)
        first = replace(first, mouth=first.mouth.filled(layer.mouth, gain))
        code = layer.code * gamma_encode(gain)
        away = np.abs(code - first.code).max(axis=-1) / UNLIKE
        doubt = 1 - first.share * (1 - np.exp(-(away**2)))
        weight = doubt * (layer.share * layer.sharpness) ** BEST
        total += weight[..., None] * code
        weights += weight
        share = np.maximum(share, layer.share)
    return first, total / weights[..., None], share


def _at_size(picture: np.ndarray, size: int) -> np.ndarray:
    if picture.shape[0] == size:
        return picture
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR)
