// Skin, features and hair of a person on the texture map, and occlusions, as in keras_scnn.texturing.skin.

import type { Atlas, Constants } from "./atlas";
import type { Triple } from "./color";
import { blur, components, dilate, erode, type Map2, maskOf, median } from "./maps";

type Rule = Constants["skin"];
type Mask = (at: number) => boolean | number;

/** Distribution of the colors of one kind in L*a*b*. */
export interface ColorModel {
  center: Triple;
  spread: Triple;
}

export interface SkinAndHair {
  /** 0 to 1: texels that show the person, weighted by their visibility. */
  keep: Map2;
  skin: ColorModel;
  lips: ColorModel | null;
  brows: ColorModel | null;
  hair: ColorModel | null;
  hasBeard: boolean;
  /** mm above the brows; null for a bald head. */
  hairline: number | null;
}

/** The color model of the texels in a mask; null if there are too few. */
function modelOf(rule: Rule, lab: Map2, mask: Mask, widest = rule.MOST_SPREAD): ColorModel | null {
  const texels: number[] = [];
  for (let at = 0; at < lab.length / 3; at++) if (mask(at)) texels.push(at);
  if (texels.length < rule.LEAST_TEXELS) return null;
  const [center, spread] = [[0, 0, 0] as Triple, [0, 0, 0] as Triple];
  for (let k = 0; k < 3; k++) {
    const values = Float64Array.from(texels, (at) => lab[3 * at + k]);
    center[k] = median(values);
    const away = 1.4826 * median(values.map((value) => Math.abs(value - center[k])));
    spread[k] = Math.min(Math.max(away, rule.LEAST_SPREAD[k]), widest[k]);
  }
  return { center, spread };
}

/** 1 if a texel's color fits a model, 0 if it does not, linear in between. */
export function shareOf(rule: Rule, { center, spread }: ColorModel, lab: Map2, at: number, strictness = 1): number {
  let sum = 0;
  for (let k = 0; k < 3; k++) {
    const away = (lab[3 * at + k] - center[k]) / spread[k];
    sum += (k === 0 && away > 0 ? rule.SHINE * away : away) ** 2;
  }
  return Math.min(Math.max((rule.FAR - Math.sqrt(sum) * strictness) / (rule.FAR - rule.NEAR), 0), 1);
}

/** Colors and mask of a person; null if no skin is visible. */
export function findColors(atlas: Atlas, lab: Map2, seen: Map2): SkinAndHair | null {
  const { zones, slant, constants } = atlas;
  const rule = constants.skin;
  const isSeen = (at: number) => seen[at] > rule.SEEN;
  const skin =
    modelOf(rule, lab, (at) => zones.cheeks[at] && isSeen(at)) ?? modelOf(rule, lab, (at) => zones.face[at] && isSeen(at));
  if (!skin) return null;
  const chroma = Math.hypot(skin.center[1], skin.center[2]) + rule.SHADOW_CHROMA;
  const isSkin = seen.map((_, at) => shareOf(rule, skin, lab, at, zones.face[at] ? 1 : rule.SIDE));
  const other = maskOf(seen.length, (at) => isSeen(at) && isSkin[at] < 0.5);
  const isRed = (at: number) => lab[3 * at + 1] > skin.center[1] - rule.LEAST_RED;
  const isDarker = (at: number) => lab[3 * at] < skin.center[0];
  const isDull = (at: number) => Math.hypot(lab[3 * at + 1], lab[3 * at + 2]) < chroma;
  const hairline = findHairline(atlas, seen, other);
  const isHair = (at: number) => other[at] && seen[at] > rule.WELL_SEEN && slant[at] > hairline!;
  const beard = findBeard(atlas, lab, isSeen, (at) => other[at] && isDarker(at) && isDull(at));
  const person: SkinAndHair = {
    keep: isSkin,
    skin,
    lips: modelOf(rule, lab, (at) => zones.lips[at] && isSeen(at) && isRed(at)),
    brows: modelOf(rule, lab, (at) => zones.brows[at] && other[at] && isDarker(at)),
    hair: hairline === null ? null : modelOf(rule, lab, isHair, rule.HAIR_SPREAD),
    hasBeard: beard !== null,
    hairline,
  };
  const keep = kept(atlas, lab, person, other);
  if (beard) keep.forEach((value, at) => beard.grows(at) && (keep[at] = Math.max(value, shareOf(rule, beard.model, lab, at))));
  keep.forEach((_, at) => atlas.skin[at] || (keep[at] = 1)); // the rims of eyes and mouth are not edges of hair
  const soft = softEdges(atlas, withoutSpecks(atlas, keep));
  return { ...person, keep: soft.map((value, at) => value * seen[at] * atlas.skin[at]) };
}

/** 0 to 1: skin, and features and scalp hair in their places. */
function kept({ zones, slant, up, front, size, constants }: Atlas, lab: Map2, person: SkinAndHair, other: Uint8Array): Map2 {
  const rule = constants.skin;
  const { skin, lips, hair, hairline } = person;
  const hasGlasses = meanOf(other, (at) => zones.bridge[at]) > rule.GLASSES;
  const hangs = strands(rule, zones, up, front, size, other);
  return person.keep.map((share, at) => {
    let keep = zones.features[at] ? 1 : share;
    if (hasGlasses && zones.eyes[at] && !zones.lids[at] && !zones.brows[at]) keep = share;
    if (lips && zones.lips[at]) {
      keep = lab[3 * at + 1] > skin.center[1] - rule.LEAST_RED ? shareOf(rule, lips, lab, at) : 0;
    }
    if (hangs(at) || (zones.brows[at] && lab[3 * at] > skin.center[0] + rule.LIGHT_BROW)) keep = 0;
    if (!hair || hairline === null) return keep;
    const scalp = Math.min(Math.max((slant[at] - hairline) / rule.HAIR_MARGIN + 1, 0), 1);
    const place = Math.max(scalp, zones.temples[at]);
    return place ? Math.max(keep, place * shareOf(rule, hair, lab, at)) : keep;
  });
}

/** A test where hair hangs from the scalp over one brow or eye, but not over the other. */
function strands(
  rule: Rule, zones: Atlas["zones"], up: Float32Array, front: Float32Array, size: number, other: Uint8Array,
): (at: number) => boolean {
  const { label } = components(maskOf(other.length, (at) => other[at] && front[at] > 0), size);
  const fromAbove = new Set<number>();
  label.forEach((number, at) => number && up[at] > rule.ABOVE_BROWS && fromAbove.add(number));
  const hangs = (at: number) => (zones.brows[at] || zones.eyes[at]) > 0 && fromAbove.has(label[at]);
  const isRight = (at: number) => at % size >= size / 2;
  const counts = [0, 0];
  label.forEach((_, at) => hangs(at) && counts[Number(isRight(at))]++);
  const [left, right] = counts;
  if (Math.min(left, right) > 0.3 * Math.max(left, right)) return () => false;
  return (at) => hangs(at) && (isRight(at) ? right > left : left > right);
}

/** Height above the brows, mm, at which the hair begins; null for a bald head. */
function findHairline({ zones, up, constants }: Atlas, seen: Map2, other: Uint8Array): number | null {
  const { BINS_MM: bins, WELL_SEEN, DEFAULT_HAIRLINE } = constants.skin;
  const step = bins[1] - bins[0];
  const [hairs, totals] = [bins.map(() => 0), bins.map(() => 0)];
  for (let at = 0; at < seen.length; at++) {
    const bin = Math.floor((up[at] - bins[0]) / step);
    if (!(seen[at] > WELL_SEEN) || !zones.middle[at] || bin < 0 || bin >= bins.length) continue;
    totals[bin]++;
    hairs[bin] += other[at];
  }
  const known = [...bins.keys()].filter((i) => totals[i] > 20);
  if (!known.length) return DEFAULT_HAIRLINE;
  const lastBald = Math.max(-1, ...known.filter((i) => hairs[i] <= 0.5 * totals[i]));
  if (lastBald < known[known.length - 1]) return bins[lastBald + 1];
  return bins[lastBald] > DEFAULT_HAIRLINE ? null : DEFAULT_HAIRLINE;
}

/** The beard's color and place, which is only around the mouth if the chin is bare; null for no beard. */
function findBeard({ zones, size, constants }: Atlas, lab: Map2, isSeen: Mask, other: Mask) {
  const rule = constants.skin;
  const isGoatee = (at: number) => zones.beard[at] && zones.middle[at];
  for (const [zone, grows] of [[zones.chin, (at: number) => zones.beard[at]], [zones.moustache, isGoatee]] as const) {
    const [dark, total] = [[0, 0], [0, 0]];
    for (let at = 0; at < zone.length; at++) {
      if (!zone[at] || !isSeen(at)) continue;
      const side = Number(at % size >= size / 2);
      total[side]++;
      dark[side] += Number(Boolean(other(at)));
    }
    const sides = [0, 1].filter((side) => total[side] >= rule.LEAST_TEXELS / 2);
    if (!sides.length || sides.some((side) => dark[side] <= rule.BEARDED * total[side])) continue;
    const model = modelOf(rule, lab, (at) => other(at) && isGoatee(at), rule.HAIR_SPREAD);
    return model && { model, grows };
  }
  return null;
}

/** Keep moles, and remove small areas within hair and the mixed colors at its edge. */
function withoutSpecks({ size, constants, chart }: Atlas, keep: Map2): Map2 {
  const { label, sizes } = components(maskOf(keep.length, (at) => keep[at] < 0.5), size, true);
  const limit = constants.skin.MOLE * size ** 2;
  const whole = keep.map((value, at) => (label[at] && sizes[label[at]] < limit ? 1 : value));
  const { thin, edge } = chart.texture.disks;
  return erode(dilate(erode(whole, size, thin), size, thin), size, edge);
}

/** Shares that fade to 0 towards the texels left out. */
function softEdges({ size, constants }: Atlas, keep: Map2): Map2 {
  return blur(keep, size, constants.skin.BLUR * size).map((value, at) => Math.min(value, 4 * keep[at]));
}

function meanOf(values: Uint8Array, mask: Mask): number {
  let [sum, count] = [0, 0];
  for (let at = 0; at < values.length; at++) {
    if (!mask(at)) continue;
    sum += values[at];
    count++;
  }
  return sum / Math.max(count, 1);
}
