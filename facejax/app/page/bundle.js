// Runs an ONNX bundle in onnxruntime-web on photos; results are as from `PhotoResult.to_dict` in Python.

import { Mtcnn } from "./mtcnn.js";
import { cropFace, stretch } from "./pixels.js";

// Faces per batch.
const BATCH = 8;
const LANDMARKS = ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth"];
/** @type {Record<string, string>} */
const OUTPUT_NAMES = {
  gender: "perceived_gender",
  ethnicity: "perceived_ethnicity",
  emotion8: "expression",
  emotion7: "expression",
};

export class Bundle {
  /**
   * Opens the networks of a bundle.
   * @param {any} ort  The module of onnxruntime-web.
   * @param {URL} folder  Contains manifest.json; its address ends in a slash.
   * @param {(done: number, total: number) => void} progress  Called with numbers of bytes.
   */
  static async open(ort, folder, progress) {
    const manifest = JSON.parse(new TextDecoder().decode(await read(new URL("manifest.json", folder))));
    const { cascade, pnet, rnet, onet } = manifest.detector;
    const entries = [pnet, rnet, onet, ...manifest.models];
    const total = entries.reduce((sum, entry) => sum + entry.bytes, 0);
    let done = 0;
    /** @type {import("./mtcnn.js").Run[]} */
    const runs = [];
    for (const entry of entries) {
      if (/[/\\]/.test(entry.file)) throw new Error("the files of a bundle must be in its folder");
      progress(done, total);
      const session = await ort.InferenceSession.create(await read(new URL(entry.file, folder)));
      const type = entry.input.dtype;
      runs.push((/** @type {any} */ images, /** @type {number[]} */ dims) =>
        session.run({ images: new ort.Tensor(type, images, dims) }),
      );
      done += entry.bytes;
    }
    const detector = new Mtcnn({ pnet: runs[0], rnet: runs[1], onet: runs[2] }, cascade);
    return new Bundle(detector, manifest.models.map((/** @type {any} */ entry, /** @type {number} */ index) => ({ entry, run: runs[index + 3] })));
  }

  /**
   * @param {Mtcnn} detector
   * @param {{entry: any, run: import("./mtcnn.js").Run}[]} models
   */
  constructor(detector, models) {
    this.detector = detector;
    this.models = models;
  }

  /**
   * @param {import("./pixels.js").Photo} photo
   * @returns {Promise<import("./engine.js").PhotoResult>}
   */
  async analyze(photo) {
    const found = (await this.detector.detect(photo)).filter(({ box }) => inside(box, photo));
    const faces = found.map(({ box, score, landmarks }) => ({
      box,
      score,
      landmarks: Object.fromEntries(LANDMARKS.map((name, index) => [name, landmarks[index]])),
    }));
    for (const { entry, run } of this.models) {
      const size = entry.input.shape[1];
      const pixels = size * size * 3;
      for (let start = 0; start < found.length; start += BATCH) {
        const batch = found.slice(start, start + BATCH);
        const crops = new Uint8Array(batch.length * pixels);
        batch.forEach(({ box, landmarks }, index) =>
          stretch(cropFace(photo, box, landmarks, entry.input.margin), size, crops, index * pixels),
        );
        const outputs = await run(crops, [batch.length, size, size, 3]);
        batch.forEach((_, index) => Object.assign(faces[start + index], decode(entry.outputs, outputs, index)));
      }
    }
    return { width: photo.width, height: photo.height, faces };
  }
}

/** Whether a box contains a whole pixel of the photo. */
function inside(/** @type {number[]} */ [x1, y1, x2, y2], /** @type {import("./pixels.js").Photo} */ photo) {
  const across = Math.trunc(Math.min(x2, photo.width)) > Math.trunc(Math.max(x1, 0));
  return across && Math.trunc(Math.min(y2, photo.height)) > Math.trunc(Math.max(y1, 0));
}

/** Decodes the outputs for one face. */
function decode(
  /** @type {Record<string, {labels?: string[]}>} */ described,
  /** @type {import("./mtcnn.js").Outputs} */ outputs,
  /** @type {number} */ index,
) {
  /** @type {Record<string, any>} */
  const told = {};
  for (const [name, { labels }] of Object.entries(described)) {
    if (name === "age") told.perceived_age = outputs.age.data[index];
    if (!labels) continue;
    const values = [...outputs[name].data.subarray(index * labels.length, (index + 1) * labels.length)];
    const named = Object.fromEntries(labels.map((label, place) => [label, values[place]]));
    if (name === "valence_arousal") {
      [told.valence, told.arousal] = values;
    } else if (name in OUTPUT_NAMES) {
      const probability = Math.max(...values);
      told[OUTPUT_NAMES[name]] = { label: labels[values.indexOf(probability)], probability, probabilities: named };
    }
  }
  return told;
}

/** Downloads a file as bytes. */
async function read(/** @type {URL} */ address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address.pathname}: ${response.status} ${response.statusText}`);
  return new Uint8Array(await response.arrayBuffer());
}
