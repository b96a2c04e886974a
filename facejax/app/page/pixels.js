// Image preprocessing: area resizing for the detector, and for faces the crop with level eyes and bilinear resizing.
// The same as in facejax/detect (sampling, align) and facejax/preprocessing.

/** @typedef {{data: Uint8ClampedArray, width: number, height: number}} Photo  RGBA, as ImageData has it */
/** @typedef {{data: Uint8Array, width: number, height: number}} Crop  RGB */

/** Integral image (sums of all pixels above and to the left): the mean over any area takes four look-ups. */
export class AreaSums {
  /** @param {Photo} photo  At most 16.8 megapixels, so that the sums are exact in 32 bits. */
  constructor({ data, width, height }) {
    this.stride = (width + 1) * 3;
    this.sums = new Uint32Array(this.stride * (height + 1));
    for (let y = 0; y < height; y++) {
      const row = [0, 0, 0];
      for (let x = 0; x < width; x++) {
        for (let c = 0; c < 3; c++) {
          row[c] += data[(y * width + x) * 4 + c];
          const at = (y + 1) * this.stride + (x + 1) * 3 + c;
          this.sums[at] = this.sums[at - this.stride] + row[c];
        }
      }
    }
  }

  /**
   * Writes a part of the photo, resized by means over whole pixels, as float RGB.
   * @param {[number, number, number, number]} part  Whole pixels: left, top, right, bottom.
   * @param {number} height  Height of the result.
   * @param {number} width
   * @param {Float32Array} target
   * @param {number} at  Offset in the target.
   */
  resize([left, top, right, bottom], height, width, target, at = 0) {
    const { sums, stride } = this;
    const [fullHeight, fullWidth] = [bottom - top, right - left];
    for (let y = 0; y < height; y++) {
      const y1 = top + Math.floor((y * fullHeight) / height);
      const y2 = top + Math.ceil(((y + 1) * fullHeight) / height);
      for (let x = 0; x < width; x++) {
        const x1 = left + Math.floor((x * fullWidth) / width);
        const x2 = left + Math.ceil(((x + 1) * fullWidth) / width);
        const count = (y2 - y1) * (x2 - x1);
        const [a, b] = [y1 * stride, y2 * stride];
        for (let c = 0; c < 3; c++) {
          const [l, r] = [x1 * 3 + c, x2 * 3 + c];
          target[at++] = (sums[b + r] - sums[b + l] - sums[a + r] + sums[a + l]) / count;
        }
      }
    }
  }
}

/**
 * Crops a face from a photo and rotates it about its centre so that the eyes are level; black beyond the crop.
 * @param {Photo} photo
 * @param {number[]} box
 * @param {number[][]} landmarks  The first two are the eyes.
 * @param {number} margin  Margin on every side, as a fraction of the box.
 * @returns {Crop}
 */
export function cropFace(photo, [x1, y1, x2, y2], landmarks, margin) {
  const [extraX, extraY] = [margin * (x2 - x1), margin * (y2 - y1)];
  const left = Math.trunc(Math.max(x1 - extraX, 0));
  const top = Math.trunc(Math.max(y1 - extraY, 0));
  const width = Math.trunc(Math.min(x2 + extraX, photo.width)) - left;
  const height = Math.trunc(Math.min(y2 + extraY, photo.height)) - top;
  const [dx, dy] = [landmarks[1][0] - landmarks[0][0], landmarks[1][1] - landmarks[0][1]];
  const length = Math.hypot(dx, dy);
  const [cos, sin] = length ? [dx / length, dy / length] : [1, 0];
  const [centreX, centreY] = [(width - 1) / 2, (height - 1) / 2];
  const data = new Uint8Array(width * height * 3);
  /** Value at an integer position of the crop, 0 outside it. */
  const pixel = (/** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ c) =>
    x < 0 || y < 0 || x >= width || y >= height ? 0 : photo.data[((top + y) * photo.width + left + x) * 4 + c];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const fromX = cos * (x - centreX) - sin * (y - centreY) + centreX;
      const fromY = sin * (x - centreX) + cos * (y - centreY) + centreY;
      const [lowX, lowY] = [Math.floor(fromX), Math.floor(fromY)];
      const [partX, partY] = [fromX - lowX, fromY - lowY];
      for (let c = 0; c < 3; c++) {
        const above = (1 - partX) * pixel(lowX, lowY, c) + partX * pixel(lowX + 1, lowY, c);
        const below = (1 - partX) * pixel(lowX, lowY + 1, c) + partX * pixel(lowX + 1, lowY + 1, c);
        data[(y * width + x) * 3 + c] = Math.round((1 - partY) * above + partY * below);
      }
    }
  }
  return { data, width, height };
}

/**
 * Resizes a crop to a square: bilinear, aligned at pixel centres, edges repeated, no antialiasing (OpenCV's INTER_LINEAR).
 * @param {Crop} crop
 * @param {number} size
 * @param {Uint8Array} target
 * @param {number} at
 */
export function stretch({ data, width, height }, size, target, at) {
  const columns = taps(width, size);
  for (const [y1, y2, partY] of taps(height, size)) {
    for (const [x1, x2, partX] of columns) {
      for (let c = 0; c < 3; c++) {
        const above = (1 - partX) * data[(y1 * width + x1) * 3 + c] + partX * data[(y1 * width + x2) * 3 + c];
        const below = (1 - partX) * data[(y2 * width + x1) * 3 + c] + partX * data[(y2 * width + x2) * 3 + c];
        target[at++] = Math.round((1 - partY) * above + partY * below);
      }
    }
  }
}

/** For every output position, its two neighbouring input pixels and the weight of the second. */
function taps(/** @type {number} */ length, /** @type {number} */ size) {
  return Array.from({ length: size }, (_, index) => {
    const from = Math.min(Math.max(((index + 0.5) * length) / size - 0.5, 0), length - 1);
    const low = Math.floor(from);
    return [low, Math.min(low + 1, length - 1), from - low];
  });
}
