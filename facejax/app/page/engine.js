// The interface between the page and what runs the networks: a server on this machine (server_engine.js) or the
// browser itself (browser_engine.js).

/** @typedef {{label: string, probability: number, probabilities: Record<string, number>}} Classification */
/**
 * @typedef {object} Face  As `Face.to_dict` in Python; attributes that no network predicts are missing.
 * @property {number[]} box
 * @property {Record<string, number[]>} landmarks
 * @property {number} score
 * @property {number} [perceived_age]
 * @property {Classification} [perceived_gender]
 * @property {Classification} [perceived_ethnicity]
 * @property {Classification} [expression]
 * @property {number} [valence]
 * @property {number} [arousal]
 * @property {number} [track]
 */
/** @typedef {{width: number, height: number, faces: Face[]}} PhotoResult  Boxes are in pixels of width and height. */
/** @typedef {PhotoResult & {time: number}} ClipFrame  Time in seconds. */
/**
 * @typedef {object} Config  config.json
 * @property {"server" | "browser"} engine
 * @property {{name: string, licence: string, tasks: string[]}[]} models
 * @property {{photo_bytes: number, clip_bytes: number, clip_seconds: number, clip_fps: number}} limits
 */
/**
 * @typedef {object} Engine
 * @property {string} place  Text that says where the networks run.
 * @property {(progress: (words: string) => void) => Promise<void>} open  Resolves when the engine is ready.
 * @property {(file: Blob, picture: ImageBitmap | null, signal: AbortSignal) => Promise<PhotoResult>} photo
 *   A photo file, and its decoded picture if the browser can read it.
 * @property {(canvas: HTMLCanvasElement, signal: AbortSignal) => Promise<PhotoResult>} frame  A frame of the camera.
 * @property {(file: Blob, signal: AbortSignal) => AsyncIterable<ClipFrame>} clip  A few frames per second of a clip.
 */

/** An error whose message is shown to the user. */
export class EngineError extends Error {}

/**
 * @param {Config} config
 * @returns {Promise<Engine>}
 */
export async function createEngine(config) {
  if (config.engine === "server") {
    const { ServerEngine } = await import("./server_engine.js");
    return new ServerEngine();
  }
  const { BrowserEngine } = await import("./browser_engine.js");
  return new BrowserEngine(config);
}
