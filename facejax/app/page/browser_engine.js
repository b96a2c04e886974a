// Runs the networks in this browser, in worker.js.

import { EngineError } from "./engine.js";

// Larger photos are downscaled to this many pixels on their longer side: P-Net's cost grows with the photo.
const MAX_SIDE = 1280;

/** @typedef {import("./engine.js").Engine} Engine */

/** @implements {Engine} */
export class BrowserEngine {
  place = "The networks run in this browser; nothing is sent anywhere.";
  #next = 0;
  /** @type {Map<number, {resolve: (result: any) => void, reject: (error: Error) => void}>} */
  #waiting = new Map();

  /** @param {import("./engine.js").Config} config */
  constructor({ limits }) {
    this.limits = limits;
  }

  /** @type {Engine["open"]} */
  open(progress) {
    const worker = (this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" }));
    return new Promise((resolve, reject) => {
      const failed = (/** @type {string} */ words) =>
        reject(new EngineError(`The networks could not be loaded${words ? ` (${words})` : ""}.`));
      worker.addEventListener("error", (event) => failed(event.message));
      worker.addEventListener("message", ({ data }) => {
        if (data.kind === "ready") resolve();
        if (data.kind === "failed") failed(data.message);
        if (data.kind === "progress") {
          const [done, total] = [data.done, data.total].map((bytes) => (bytes / 1e6).toFixed(0));
          progress(`Loading the networks: ${done} of ${total} MB …`);
        }
        const asked = this.#waiting.get(data.id);
        this.#waiting.delete(data.id);
        if (data.kind === "result") asked?.resolve(data.result);
        if (data.kind === "error") asked?.reject(new EngineError(`Running the networks failed (${data.message}).`));
      });
    });
  }

  /** @type {Engine["photo"]} */
  async photo(file, picture, signal) {
    if (!picture) throw new EngineError("This browser cannot read this file as a photo.");
    return this.#ask(picture, picture.width, picture.height, signal);
  }

  /** @type {Engine["frame"]} */
  async frame(canvas, signal) {
    return this.#ask(canvas, canvas.width, canvas.height, signal);
  }

  /** @type {Engine["clip"]} */
  async *clip(file, signal) {
    const { clip_seconds, clip_fps } = this.limits;
    const video = document.createElement("video");
    video.muted = true;
    video.src = URL.createObjectURL(file);
    try {
      await happens(video, "loadeddata");
      // It has sound only, or a video codec that the browser does not support.
      if (!video.videoWidth) throw new EngineError("This browser cannot decode the video of this clip.");
      // Clips recorded by a browser have no duration until they were read to the end.
      if (!Number.isFinite(video.duration)) await seek(video, 1e7);
      const end = Math.min(video.duration, clip_seconds);
      for (let step = 0; step === 0 || step / clip_fps < end; step++) {
        signal.throwIfAborted();
        await seek(video, step / clip_fps);
        const result = await this.#ask(video, video.videoWidth, video.videoHeight, signal);
        yield { time: step / clip_fps, ...result };
      }
    } finally {
      URL.revokeObjectURL(video.src);
      video.removeAttribute("src");
    }
  }

  /**
   * @param {CanvasImageSource} picture
   * @param {number} width
   * @param {number} height
   * @param {AbortSignal} signal
   * @returns {Promise<import("./engine.js").PhotoResult>}
   */
  async #ask(picture, width, height, signal) {
    signal.throwIfAborted();
    const scale = Math.min(1, MAX_SIDE / Math.max(width, height));
    const size = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
    const context = new OffscreenCanvas(size[0], size[1]).getContext("2d", { willReadFrequently: true });
    if (!context) throw new EngineError("This browser does not support canvas.");
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, 0, 0, size[0], size[1]);
    const { data } = context.getImageData(0, 0, size[0], size[1]);
    const id = this.#next++;
    const result = await new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.worker?.postMessage({ id, photo: { data, width: size[0], height: size[1] } }, [data.buffer]);
    });
    signal.throwIfAborted();
    return result;
  }
}

/** Waits for an event of a video. */
function happens(/** @type {HTMLVideoElement} */ video, /** @type {string} */ name) {
  return new Promise((resolve, reject) => {
    const unreadable = () => reject(new EngineError("This clip cannot be read by the browser."));
    video.addEventListener(name, resolve, { once: true });
    video.addEventListener("error", unreadable, { once: true });
  });
}

/** Seeks to a time in a video. */
async function seek(/** @type {HTMLVideoElement} */ video, /** @type {number} */ time) {
  const there = happens(video, "seeked");
  video.currentTime = time;
  await there;
}
