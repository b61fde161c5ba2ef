// The texture of a face in a photo, as in keras_scnn.texturing.texture.

import type { Atlas } from "./atlas";
import { layOver } from "./blending";
import { labFromLinear, srgbFromLinear } from "./color";
import { defaultEyes, type EyeColors, eyeShare, findEyes } from "./eyes";
import { shadingOf } from "./light";
import { type Map2, maskOf } from "./maps";
import { findMouth, type MouthColors, teethShare } from "./mouth";
import { paintPlain } from "./painting";
import { lookAt, type Photo, type Sight } from "./sight";
import { findColors, type SkinAndHair } from "./skin";

const STEPS = 4096; // size of the lookup table from encoded values, 0 to 1, to levels

/**
 * RGBA of the map, first row at v = 1: the skin's own colors, without the photo's lighting.
 *
 * `posed` is N x (x, y, depth), px of the photo.
 */
export function paintTexture(atlas: Atlas, photo: Photo, posed: Float32Array): Uint8ClampedArray<ArrayBuffer> {
  const sight = lookAt(atlas, photo, posed);
  const found = personAndLight(atlas, sight);
  if (!found) return finished(atlas, encoded(atlas, paintPlain(atlas, ...strangerOf(atlas))));
  const { person, shade } = found;
  const albedo = divided(sight.color, shade);
  const eyes = findEyes(atlas, albedo, sight.seen, person.skin);
  const mouth = findMouth(atlas, photo, posed, sight, shade, person.skin);
  const share = eyeShare(atlas, albedo, sight.seen, person.skin).map((value, at) => value + person.keep[at]);
  if (mouth.teeth) teethShare(atlas, albedo, sight.seen, person.skin).forEach((value, at) => (share[at] += value));
  const picture = encoded(atlas, paintPlain(atlas, person, eyes, mouth));
  return finished(atlas, overPlain(atlas, picture, encoded(atlas, albedo).map((value) => Math.min(value, 1)), share));
}

/** Estimate the light from skin by its place, then skin by its color, then both again. */
function personAndLight(atlas: Atlas, { color, seen, normals }: Sight): { person: SkinAndHair; shade: Map2 } | null {
  const { zones } = atlas;
  const isBare = (at: number) => zones.face[at] && !zones.features[at];
  let weight = seen.map((value, at) => (isBare(at) && !zones.beard[at] ? value * (zones.cheeks[at] ? 1 : 0.3) : 0));
  let [person, shade]: [SkinAndHair | null, Map2] = [null, color];
  for (let round = 0; round < 2; round++) {
    shade = shadingOf(atlas, color, normals, weight);
    const lab = divided(color, shade);
    for (let at = 0; at < lab.length; at += 3) labFromLinear(lab, at, lab, at);
    person = findColors(atlas, lab, seen);
    if (!person) return null;
    const { keep, hasBeard } = person;
    weight = keep.map((value, at) => (isBare(at) && !(hasBeard && zones.beard[at]) ? value : 0));
  }
  return person && { person, shade };
}

/** Default colors, for a person without visible skin. */
function strangerOf(atlas: Atlas): [SkinAndHair, EyeColors, MouthColors] {
  const skin = { center: atlas.chart.texture.unknown_skin, spread: atlas.constants.skin.LEAST_SPREAD };
  const person = { keep: new Float32Array(), skin, lips: null, brows: null, hair: null, hasBeard: false, hairline: null };
  return [person, defaultEyes(atlas, skin), { teeth: null, lining: null }];
}

/** Blend the photo over its mirror image over a plain face; eyes and mouth are not mirrored. */
function overPlain(atlas: Atlas, plain: Map2, code: Map2, share: Map2): Map2 {
  const { skin } = atlas;
  if (!share.some((value) => value > 0)) return plain;
  const picture = plain.slice();
  const teeth = maskOf(skin.length, (at) => atlas.isTeeth(at));
  if (atlas.chart.is_symmetric) {
    const other = share.map((_, at) => share[atlas.other(at)] * skin[at]);
    layOver(atlas, picture, code.map((_, i) => code[3 * atlas.other(Math.floor(i / 3)) + (i % 3)]), other, skin);
  }
  layOver(atlas, picture, code, share.map((value, at) => value * skin[at]), skin);
  const mouth = plain.slice();
  const seen = share.map((value, at) => value * teeth[at]);
  if (seen.some((value) => value > 0)) layOver(atlas, mouth, code, seen, teeth);
  return picture.map((value, i) => {
    const at = Math.floor(i / 3);
    if (skin[at]) return value;
    return atlas.isEye(at) ? plain[i] + share[at] * (code[i] - plain[i]) : teeth[at] ? mouth[i] : plain[i];
  });
}

function divided(color: Map2, shade: Map2): Map2 {
  return color.map((value, i) => value / shade[i]);
}

/** Gamma-encoded light, about as perceptually uniform as sRGB. */
function encoded({ constants }: Atlas, light: Map2): Map2 {
  return light.map((value) => Math.max(value, 0) ** (1 / constants.blending.GAMMA));
}

/** RGBA levels; the gutter gets the colors of the nearest texels of the face. */
function finished({ nearest, constants }: Atlas, code: Map2): Uint8ClampedArray<ArrayBuffer> {
  const pixels = new Uint8ClampedArray(4 * nearest.length).fill(255);
  const levels = Float32Array.from({ length: STEPS + 1 }, (_, i) => 255 * srgbFromLinear((i / STEPS) ** constants.blending.GAMMA));
  for (let at = 0; at < nearest.length; at++) {
    for (let k = 0; k < 3; k++) {
      pixels[4 * at + k] = levels[Math.round(STEPS * Math.min(Math.max(code[3 * nearest[at] + k], 0), 1))];
    }
  }
  return pixels;
}
