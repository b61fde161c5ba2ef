// Crops as in keras_scnn.photos.cropping: boxes are half-open pixel slices, pixel centers are at integers,
// whole blocks are averaged first, and everything outside the photo is black.

export interface Box {
  x0: number;
  y0: number;
  side: number;
  /** Clockwise rotation of the square around its center, radians; 0 by default. */
  angle?: number;
  /** 1, or -1 for a mirrored crop; 1 by default. */
  across?: number;
}

export interface Size {
  width: number;
  height: number;
}

/** RGBA, row by row from the top: an ImageData, or a part of one. */
export interface Pixels extends Size {
  data: Uint8ClampedArray;
}

/** Of a square, relative to the photo's longer side: as geometry.crops.MAX_RELATIVE_WIDTH. */
const MAX_RELATIVE_SIDE = 16;
/** Of the part of a photo that is averaged in whole blocks: as geometry.crops.check_patch. */
const MAX_PATCH_PIXELS = 16_000_000;

/**
 * A square of a photo as size x size x 3 numbers from 0 to 255.
 *
 * Throws a RangeError if the square is empty, not finite or far larger than the photo, or if the photo is so
 * long and narrow that whole blocks of the square cover far more than the photo.
 */
export function cropSquare(photo: Pixels, box: Box, size: number): Uint8Array<ArrayBuffer> {
  const longer = Math.max(photo.width, photo.height);
  const isFinite = [box.x0, box.y0, box.side, box.angle ?? 0].every(Number.isFinite);
  if (!isFinite || box.side <= 0 || box.side > MAX_RELATIVE_SIDE * longer) {
    throw new RangeError(
      `square is ${JSON.stringify(box)}; its side must be above 0 and at most ${MAX_RELATIVE_SIDE} times the photo's ${longer} px`,
    );
  }
  const block = Math.max(1, rint(box.side / size));
  const patch = averagedPatch(photo, box, block);
  const toPhoto = photoFromCrop(box, size);
  const crop = new Uint8Array(size * size * 3);
  let at = 0;
  for (let v = 0; v < size; v++) {
    for (let u = 0; u < size; u++) {
      const [x, y] = toPhoto(u, v);
      const [column, row] = [(x + 0.5 - patch.x) / block - 0.5, (y + 0.5 - patch.y) / block - 0.5];
      for (let channel = 0; channel < 3; channel++) {
        crop[at++] = rint(sample(patch, column, row, channel));
      }
    }
  }
  return crop;
}

/**
 * The photo halved until it is below `limit` px or a side is odd, and the factor 1, 2, 4, ...
 *
 * By means of 2 x 2 px, rounded half up: see keras_scnn.photos.detection.
 */
export function halved(photo: Pixels, limit: number): [photo: Pixels, factor: number] {
  let factor = 1;
  while (Math.max(photo.width, photo.height) >= limit && photo.width % 2 === 0 && photo.height % 2 === 0) {
    photo = half(photo);
    factor *= 2;
  }
  return [photo, factor];
}

function half({ data, width, height }: Pixels): Pixels {
  const result = new Uint8ClampedArray(data.length / 4);
  let at = 0;
  for (let y = 0; y < height; y += 2) {
    for (let x = 0; x < width; x += 2) {
      const [first, below] = [4 * (y * width + x), 4 * ((y + 1) * width + x)];
      for (let channel = 0; channel < 4; channel++) {
        const [i, j] = [first + channel, below + channel];
        result[at++] = (data[i] + data[i + 4] + data[j] + data[j + 4] + 2) >> 2;
      }
    }
  }
  return { data: result, width: width / 2, height: height / 2 };
}

/** The map from points of the crop to the photo; pixel centers at integers in both. */
export function photoFromCrop(box: Box, size: number): (u: number, v: number) => [number, number] {
  const [cos, sin] = [Math.cos(box.angle ?? 0), Math.sin(box.angle ?? 0)];
  const center = box.side / 2 - 0.5;
  return (u, v) => {
    const x = (box.across ?? 1) * ((u + 0.5) / size - 0.5) * box.side;
    const y = ((v + 0.5) / size - 0.5) * box.side;
    return [box.x0 + center + cos * x - sin * y, box.y0 + center + sin * x + cos * y];
  };
}

interface Patch extends Size {
  x: number;
  y: number;
  values: Uint8Array;
}

function averagedPatch(photo: Pixels, box: Box, block: number): Patch {
  const angle = box.angle ?? 0;
  const reach = (box.side * (Math.abs(Math.cos(angle)) + Math.abs(Math.sin(angle)) - 1)) / 2;
  const range = (start: number, limit: number): [number, number] => {
    const low = clamp(Math.floor(start - reach) - 2 * block, 0, limit - 1);
    return [low, clamp(Math.ceil(start + box.side + reach) + 2 * block, low + 1, limit)];
  };
  const [left, right] = range(box.x0, photo.width);
  const [top, bottom] = range(box.y0, photo.height);
  const width = Math.ceil((right - left) / block);
  const height = Math.ceil((bottom - top) / block);
  const [covered, allowed] = [width * height * block ** 2, 2 * photo.width * photo.height];
  if (covered > Math.max(MAX_PATCH_PIXELS, allowed)) {
    throw new RangeError(
      `the photo of ${photo.width} x ${photo.height} px is too long for a square crop: ${width * block} x ${height * block} px would be averaged`,
    );
  }
  const values = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        for (let j = 0; j < block; j++) {
          const row = Math.min(top + y * block + j, bottom - 1);
          for (let i = 0; i < block; i++) {
            const column = Math.min(left + x * block + i, right - 1);
            sum += photo.data[4 * (row * photo.width + column) + channel];
          }
        }
        const mean = sum / (block * block);
        values[3 * (y * width + x) + channel] = block === 2 ? Math.floor(mean + 0.5) : rint(mean);
      }
    }
  }
  return { x: left, y: top, width, height, values };
}

function sample(patch: Patch, x: number, y: number, channel: number): number {
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const [right, down] = [x - left, y - top];
  const at = (column: number, row: number) =>
    column < 0 || row < 0 || column >= patch.width || row >= patch.height
      ? 0
      : patch.values[3 * (row * patch.width + column) + channel];
  const upper = at(left, top) * (1 - right) + at(left + 1, top) * right;
  const lower = at(left, top + 1) * (1 - right) + at(left + 1, top + 1) * right;
  return upper * (1 - down) + lower * down;
}

/** Rounds half to even, like OpenCV for the means of blocks other than 2 x 2. */
function rint(value: number): number {
  const low = Math.floor(value);
  const isHalf = value - low === 0.5;
  return isHalf ? low + (low % 2) : Math.round(value);
}

export function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}

/** The standard crop of points (x, y, depth, x, ...), px: see cropping.box_from_landmarks. */
export function boxOfLandmarks(points: Float32Array): Box {
  const low = [Infinity, Infinity];
  const high = [-Infinity, -Infinity];
  for (let i = 0; i < points.length; i += 3) {
    for (const axis of [0, 1]) {
      low[axis] = Math.min(low[axis], points[i + axis]);
      high[axis] = Math.max(high[axis], points[i + axis]);
    }
  }
  const side = Math.hypot(high[0] - low[0], high[1] - low[1]);
  return squareAt((low[0] + high[0]) / 2 + 0.5, (low[1] + high[1]) / 2 + 0.5, side);
}

/** The same for a head rotated by `angle`, as if it were upright: see cropping.crop_upright. */
export function uprightBox(points: Float32Array, angle: number): Box {
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const upright = points.map((value, i) => {
    if (i % 3 === 2) return value;
    return i % 3 ? cos * value - sin * points[i - 1] : cos * value + sin * points[i + 1];
  });
  const box = boxOfLandmarks(upright);
  const [x, y] = [box.x0 + box.side / 2 - 0.5, box.y0 + box.side / 2 - 0.5];
  return { ...squareAt(cos * x - sin * y + 0.5, sin * x + cos * y + 0.5, box.side), angle };
}

export function squareAt(x: number, y: number, side: number): Box {
  return { x0: x - side / 2, y0: y - side / 2, side };
}
