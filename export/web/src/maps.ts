// Operations on row-major square maps of numbers, like those of OpenCV in keras_scnn.texturing.

export type Map2 = Float32Array<ArrayBuffer>;

/** A mask of `count` bytes, 1 where `isIn`; several times faster than Uint8Array.from. */
export function maskOf(count: number, isIn: (at: number) => unknown): Uint8Array<ArrayBuffer> {
  const mask = new Uint8Array(count);
  for (let at = 0; at < count; at++) if (isIn(at)) mask[at] = 1;
  return mask;
}

/** The median, like NumPy's; NaN without values. */
export function median(values: ArrayLike<number>): number {
  return quantile(values, 0.5);
}

/** The quantile with linear interpolation, like NumPy's; NaN without values. */
export function quantile(values: ArrayLike<number>, share: number): number {
  const sorted = Float64Array.from(values).sort();
  const place = share * (sorted.length - 1);
  const low = Math.floor(place);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted.length ? sorted[low] + (place - low) * (sorted[high] - sorted[low]) : NaN;
}

/** A Gaussian blur of a map, which is mirrored at its outer pixels. */
export function blur(map: Map2, width: number, sigma: number): Map2 {
  const radius = Math.floor(4 * sigma + 0.5);
  const kernel = Float32Array.from({ length: 2 * radius + 1 }, (_, i) => Math.exp(-((i - radius) ** 2) / (2 * sigma ** 2)));
  const total = kernel.reduce((sum, value) => sum + value, 0);
  kernel.forEach((value, i) => (kernel[i] = value / total));
  return blurRows(blurRows(map, width, kernel), map.length / width, kernel);
}

/** The map with blurred rows, transposed. */
function blurRows(map: Map2, width: number, kernel: Float32Array): Map2 {
  const [height, radius] = [map.length / width, (kernel.length - 1) / 2];
  const row = new Float32Array(width + 2 * radius);
  const result = new Float32Array(map.length);
  for (let y = 0; y < height; y++) {
    let isEmpty = true;
    for (let i = 0; i < row.length; i++) {
      row[i] = map[y * width + mirrored(i - radius, width)];
      isEmpty &&= row[i] === 0;
    }
    if (isEmpty) continue;
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let i = 0; i < kernel.length; i++) sum += kernel[i] * row[x + i];
      result[x * height + y] = sum;
    }
  }
  return result;
}

function mirrored(at: number, length: number): number {
  if (length === 1) return 0;
  const folded = Math.abs(at) % (2 * length - 2);
  return Math.min(folded, 2 * length - 2 - folded);
}

/** Minimum around each place within a shape, given by its rows' half widths, -1 for an empty row. */
export function erode(map: Map2, width: number, shape: number[]): Map2 {
  const [height, radius] = [map.length / width, (shape.length - 1) / 2];
  const result = new Float32Array(map.length).fill(Infinity);
  const runs = [map];
  for (let half = 1; half <= Math.max(...shape); half++) runs.push(widened(runs[half - 1], width));
  shape.forEach((half, i) => {
    if (half < 0) return;
    const least = runs[half];
    const shift = (i - radius) * width;
    const [first, last] = [Math.max(0, radius - i), Math.min(height, height + radius - i)];
    for (let at = first * width; at < last * width; at++) {
      if (least[at + shift] < result[at]) result[at] = least[at + shift];
    }
  });
  return result;
}

/** Maximum around each place within a shape. */
export function dilate(map: Map2, width: number, shape: number[]): Map2 {
  const negated = erode(map.map((value) => -value), width, shape);
  return negated.map((value) => -value);
}

/** Minimum of each place and its left and right neighbors. */
function widened(map: Map2, width: number): Map2 {
  const result = map.slice();
  for (let at = 0; at < map.length; at++) {
    const column = at % width;
    if (column && map[at - 1] < result[at]) result[at] = map[at - 1];
    if (column < width - 1 && map[at + 1] < result[at]) result[at] = map[at + 1];
  }
  return result;
}

/** A square with an odd side, as rows' half widths. */
export function square(side: number): number[] {
  return new Array(side).fill((side - 1) / 2);
}

/** Connected areas of nonzero places, labeled from 1, and their sizes by label (0 for the background). */
export function components(mask: Uint8Array, width: number, isEight = false): { label: Int32Array; sizes: number[] } {
  const label = new Int32Array(mask.length);
  const stack = new Int32Array(mask.length);
  const sizes = [0];
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || label[start]) continue;
    label[start] = sizes.length;
    sizes.push(flood(mask, width, isEight, label, stack, start));
  }
  return { label, sizes };
}

/** Give a place's label to everything connected with it; return the size of the area. */
function flood(mask: Uint8Array, width: number, isEight: boolean, label: Int32Array, stack: Int32Array, start: number): number {
  const number = label[start];
  let [left, size] = [1, 0];
  stack[0] = start;
  while (left) {
    const at = stack[--left];
    const column = at % width;
    size++;
    for (let row = at - width; row <= at + width; row += width) {
      const reach = isEight || row === at ? 1 : 0;
      const [first, last] = [column ? row - reach : row, column < width - 1 ? row + reach : row];
      for (let to = first; to <= last; to++) {
        if (to < 0 || to >= mask.length || !mask[to] || label[to]) continue;
        label[to] = number;
        stack[left++] = to;
      }
    }
  }
  return size;
}

/** Shrink an image with `channels` numbers per pixel: each pixel is the mean of the area it covers. */
export function shrink(image: ArrayLike<number>, width: number, height: number, channels: number, to: [number, number]) {
  const rows = shrinkRows(image, width, height, channels, to[0]);
  return shrinkRows(rows, height, to[0], channels, to[1]);
}

/** The image with shrunk rows, transposed. */
function shrinkRows(image: ArrayLike<number>, width: number, height: number, channels: number, to: number): Map2 {
  const result = new Float32Array(height * to * channels);
  const scale = width / to;
  for (let x = 0; x < to; x++) {
    const [low, high] = [x * scale, Math.min((x + 1) * scale, width)];
    for (let from = Math.floor(low); from < high - 1e-6; from++) {
      const part = (Math.min(from + 1, high) - Math.max(from, low)) / scale;
      for (let y = 0; y < height; y++) {
        for (let k = 0; k < channels; k++) {
          result[(x * height + y) * channels + k] += part * image[(y * width + from) * channels + k];
        }
      }
    }
  }
  return result;
}

/** Enlarge a square map with `channels` numbers per pixel by bilinear interpolation. */
export function enlarge(map: Map2, side: number, channels: number, to: number): Map2 {
  const result = new Float32Array(to * to * channels);
  const places = Array.from({ length: to }, (_, i) => {
    const at = Math.min(Math.max(((i + 0.5) * side) / to - 0.5, 0), side - 1);
    return [Math.min(Math.floor(at), Math.max(side - 2, 0)), at - Math.min(Math.floor(at), Math.max(side - 2, 0))];
  });
  places.forEach(([top, fy], y) =>
    places.forEach(([left, fx], x) => {
      for (let k = 0; k < channels; k++) {
        const at = (top * side + left) * channels + k;
        const [right, down] = [fx ? channels : 0, fy ? side * channels : 0];
        const above = map[at] * (1 - fx) + map[at + right] * fx;
        const below = map[at + down] * (1 - fx) + map[at + down + right] * fx;
        result[(y * to + x) * channels + k] = above * (1 - fy) + below * fy;
      }
    }),
  );
  return result;
}
