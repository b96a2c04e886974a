// MTCNN's cascade around its three networks (Zhang et al. 2016), as in facejax/detect/mtcnn.py and
// examples/onnx_bundle.py; its parameters are stored in the bundle.

import { move, square, suppress } from "./boxes.js";
import { AreaSums } from "./pixels.js";

// Batch size of R- and O-Net: limits the memory for photos of crowds.
const BATCH = 64;

/** @typedef {Record<string, {data: any, dims: readonly number[]}>} Outputs */
/** @typedef {(images: Float32Array | Uint8Array, dims: number[]) => Promise<Outputs>} Run */
/** @typedef {{box: number[], score: number, landmarks: number[][]}} Found */
/** @typedef {{min_face: number, factor: number, thresholds: number[], window: number, stride: number, sides: number[], suppression: number[]}} Cascade */

export class Mtcnn {
  /**
   * @param {{pnet: Run, rnet: Run, onet: Run}} networks
   * @param {Cascade} cascade
   */
  constructor(networks, cascade) {
    this.networks = networks;
    this.cascade = cascade;
  }

  /**
   * Faces of a photo, best first.
   * @param {import("./pixels.js").Photo} photo
   * @returns {Promise<Found[]>}
   */
  async detect(photo) {
    const { sides, thresholds, suppression } = this.cascade;
    const sums = new AreaSums(photo);
    const squares = await this.#propose(photo, sums);
    const seen = await this.#refine(this.networks.rnet, photo, sums, squares, sides[0], thresholds[1]);
    const kept = suppress(seen.map(({ box }) => box), seen.map(({ score }) => score), suppression[2]);
    const again = kept.map((index) => square(move(seen[index].box, seen[index].offsets, 1)));
    const last = await this.#refine(this.networks.onet, photo, sums, again, sides[1], thresholds[2]);
    const faces = last.map(({ box, score, offsets, points }) => ({
      box: move(box, offsets, 1),
      score,
      landmarks: [0, 1, 2, 3, 4].map((k) => [
        points[k] * (box[2] - box[0] + 1) + box[0] - 1,
        points[k + 5] * (box[3] - box[1] + 1) + box[1] - 1,
      ]),
    }));
    const best = suppress(faces.map(({ box }) => box), faces.map(({ score }) => score), suppression[3], true);
    return best.map((index) => faces[index]);
  }

  /** Square candidates from P-Net on the image pyramid. */
  async #propose(/** @type {import("./pixels.js").Photo} */ photo, /** @type {AreaSums} */ sums) {
    const { min_face, factor, thresholds, window, stride, suppression } = this.cascade;
    /** @type {{box: number[], score: number, offsets: number[]}[]} */
    const found = [];
    const whole = /** @type {[number, number, number, number]} */ ([0, 0, photo.width, photo.height]);
    for (let scale = window / min_face; Math.min(photo.width, photo.height) * scale >= window; scale *= factor) {
      const [height, width] = [Math.trunc(photo.height * scale + 1), Math.trunc(photo.width * scale + 1)];
      const level = new Float32Array(height * width * 3);
      sums.resize(whole, height, width, level);
      const { probability, offsets } = await this.networks.pnet(level, [1, height, width, 3]);
      const across = probability.dims[2];
      /** @type {{box: number[], score: number, offsets: number[]}[]} */
      const here = [];
      // In float32, as in the detector: many quotients are whole numbers but for rounding.
      const inPhoto = (/** @type {number} */ edge) => Math.floor(Math.fround(edge / Math.fround(scale)));
      for (let at = 0; at < probability.data.length; at++) {
        if (probability.data[at] < thresholds[0]) continue;
        const [x, y] = [(at % across) * stride, Math.floor(at / across) * stride];
        here.push({
          box: [x + 1, y + 1, x + window, y + window].map(inPhoto),
          score: probability.data[at],
          offsets: [...offsets.data.subarray(at * 4, at * 4 + 4)],
        });
      }
      const kept = suppress(here.map(({ box }) => box), here.map(({ score }) => score), suppression[0]);
      found.push(...kept.map((index) => here[index]));
    }
    const kept = suppress(found.map(({ box }) => box), found.map(({ score }) => score), suppression[1]);
    return kept.map((index) => square(move(found[index].box, found[index].offsets, 0)));
  }

  /**
   * Runs R- or O-Net on candidates; returns those above the limit with their outputs, in reverse order: several
   * candidates of a clear face reach exactly 1, and among equal scores the last one wins.
   * @param {Run} network
   * @param {import("./pixels.js").Photo} photo
   * @param {AreaSums} sums
   * @param {number[][]} boxes
   * @param {number} side
   * @param {number} limit
   */
  async #refine(network, photo, sums, boxes, side, limit) {
    const looked = boxes
      .map((box) => ({
        box,
        // Boxes count pixels from 1 and include both ends.
        part: /** @type {[number, number, number, number]} */ ([
          Math.max(Math.trunc(box[0]), 1) - 1,
          Math.max(Math.trunc(box[1]), 1) - 1,
          Math.min(Math.trunc(box[2]), photo.width),
          Math.min(Math.trunc(box[3]), photo.height),
        ]),
      }))
      .filter(({ part }) => part[2] > part[0] && part[3] > part[1]);
    /** @type {{box: number[], score: number, offsets: number[], points: number[]}[]} */
    const seen = [];
    for (let start = 0; start < looked.length; start += BATCH) {
      const batch = looked.slice(start, start + BATCH);
      const pixels = side * side * 3;
      const crops = new Float32Array(batch.length * pixels);
      batch.forEach(({ part }, index) => sums.resize(part, side, side, crops, index * pixels));
      const { probability, offsets, landmarks } = await network(crops, [batch.length, side, side, 3]);
      batch.forEach(({ box }, index) => {
        const score = probability.data[index];
        if (score <= limit) return;
        seen.push({
          box,
          score,
          offsets: [...offsets.data.subarray(index * 4, index * 4 + 4)],
          points: landmarks ? [...landmarks.data.subarray(index * 10, index * 10 + 10)] : [],
        });
      });
    }
    return seen.reverse();
  }
}
