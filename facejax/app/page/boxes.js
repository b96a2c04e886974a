// Operations on boxes [x1, y1, x2, y2] in pixels, as in facejax/detect/boxes.py, which explains them.

/** @typedef {number[]} Box  x1, y1, x2, y2 */

/**
 * Indices of the boxes that greedy non-maximum suppression keeps, best first.
 * @param {Box[]} boxes
 * @param {number[]} scores
 * @param {number} limit  A box is dropped if its overlap with a better one exceeds this.
 * @param {boolean} smaller  Whether to use MTCNN's "Min" rule, which also counts both end pixels, instead of the union.
 */
export function suppress(boxes, scores, limit, smaller = false) {
  const end = smaller ? 1 : 0;
  const areas = boxes.map(([x1, y1, x2, y2]) => (x2 - x1 + end) * (y2 - y1 + end));
  const order = boxes.map((_, index) => index).sort((a, b) => scores[b] - scores[a]);
  /** @type {number[]} */
  const kept = [];
  for (const index of order) {
    const clashes = kept.some((other) => {
      const [a, b] = [boxes[index], boxes[other]];
      const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]) + end;
      const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]) + end;
      const shared = Math.max(width, 0) * Math.max(height, 0);
      const whole = smaller
        ? Math.min(areas[index], areas[other])
        : areas[index] + areas[other] - shared;
      return shared > limit * whole;
    });
    if (!clashes) kept.push(index);
  }
  return kept;
}

/**
 * A box moved by a network's regression: each edge by its offset times the width or height.
 * @param {Box} box
 * @param {ArrayLike<number>} offsets
 * @param {number} end  1 if x2 and y2 are inclusive, otherwise 0.
 * @returns {Box}
 */
export function move([x1, y1, x2, y2], offsets, end) {
  const [width, height] = [x2 - x1 + end, y2 - y1 + end];
  return [x1 + offsets[0] * width, y1 + offsets[1] * height, x2 + offsets[2] * width, y2 + offsets[3] * height];
}

/**
 * The square with the same centre and the longer side of the box.
 * @param {Box} box
 * @returns {Box}
 */
export function square([x1, y1, x2, y2]) {
  const side = Math.max(x2 - x1, y2 - y1);
  const [left, top] = [x1 + (x2 - x1 - side) / 2, y1 + (y2 - y1 - side) / 2];
  return [left, top, left + side, top + side];
}
