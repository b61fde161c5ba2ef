// An evenly lit face in a person's colors, as in keras_scnn.texturing.painting.

import { type Atlas, SOFT } from "./atlas";
import { lightFromLab, linearFromSrgb } from "./color";
import { type EyeColors, paintEyes } from "./eyes";
import { blur, type Map2 } from "./maps";
import type { MouthColors } from "./mouth";
import type { SkinAndHair } from "./skin";

/** The map in linear colors, three numbers per texel. */
export function paintPlain(atlas: Atlas, person: SkinAndHair, eyes: EyeColors, mouth: MouthColors): Map2 {
  const { size, slant, skin: isSkin, constants } = atlas;
  const rule = constants.painting;
  const skin = lightFromLab(person.skin.center);
  const picture = new Float32Array(3 * size * size);
  for (let i = 0; i < picture.length; i++) picture[i] = skin[i % 3];
  const hair = person.hair ?? person.brows;
  const { hairline } = person;
  if (hair && hairline !== null) {
    const scalp = slant.map((value, at) => isSkin[at] * Math.min(Math.max((value - hairline) / 5, 0), 1));
    lay(picture, blur(scalp, size, (2 * size) / SOFT), lightFromLab(hair.center));
  }
  const lips = person.lips ? lightFromLab(person.lips.center) : skin.map((value, k) => value * rule.LIP_TINT[k]);
  lay(picture, atlas.softLips, lips);
  const brows = person.brows ?? hair;
  if (brows) lay(picture, atlas.softBrows, lightFromLab(brows.center), rule.BROW_SHARE);
  paintMouth(atlas, picture, mouth);
  paintEyes(atlas, picture, eyes);
  if (Math.hypot(person.skin.center[1], person.skin.center[2]) < rule.GRAY) {
    for (let i = 0; i < picture.length; i += 3) picture.fill((picture[i] + picture[i + 1] + picture[i + 2]) / 3, i, i + 3);
  }
  return picture;
}

function lay(picture: Map2, share: Map2, color: number[], most = 1): void {
  for (let at = 0; at < share.length; at++) {
    if (!share[at]) continue;
    for (let k = 0; k < 3; k++) picture[3 * at + k] += most * share[at] * (color[k] - picture[3 * at + k]);
  }
}

/** Lining, tongue and teeth, darker the deeper they are in the mouth. */
function paintMouth({ region, mouthLight, constants }: Atlas, picture: Map2, mouth: MouthColors): void {
  const { MOUTH, TEETH } = constants.atlas;
  const lining = mouth.lining ?? constants.painting.PLAIN_MOUTH.map(linearFromSrgb);
  const teeth = mouth.teeth ?? constants.painting.PLAIN_TEETH.map(linearFromSrgb);
  region.forEach((part, at) => {
    if (part !== MOUTH && part !== TEETH) return;
    for (let k = 0; k < 3; k++) picture[3 * at + k] = mouthLight[at] * (part === MOUTH ? lining : teeth)[k];
  });
}
