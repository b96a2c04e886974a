// The camera of the device that shows the page.

import { EngineError } from "./engine.js";

// Frames are downscaled to this many pixels on their longer side: faces in front of a camera are large.
const MAX_SIDE = 640;

export class Camera {
  /** @type {MediaStream | null} */
  #stream = null;
  #facing = "user";

  /** @param {HTMLVideoElement} video  Shows the camera's picture. */
  constructor(video) {
    this.video = video;
  }

  get running() {
    return this.#stream !== null;
  }

  /**
   * Requests access to the camera and starts it.
   * @param {boolean} other  Whether to switch to the one on the other side of a phone.
   * @param {AbortSignal} signal
   */
  async start(other, signal) {
    if (other) this.#facing = this.#facing === "user" ? "environment" : "user";
    const wanted = { video: { facingMode: this.#facing, width: { ideal: 1280 }, height: { ideal: 720 } }, audio: false };
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia(wanted);
    } catch (error) {
      throw new EngineError(words(/** @type {DOMException} */ (error)));
    }
    if (signal.aborted) {
      for (const track of stream.getTracks()) track.stop();
      signal.throwIfAborted();
    }
    this.#stream = stream;
    this.video.controls = false;
    this.video.srcObject = stream;
    await this.video.play();
  }

  /** Whether there is a second camera; only known once access to the first was granted. */
  async hasOther() {
    const devices = await navigator.mediaDevices.enumerateDevices();
    return devices.filter(({ kind }) => kind === "videoinput").length > 1;
  }

  stop() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    if (this.#stream) this.video.srcObject = null;
    this.#stream = null;
  }

  /**
   * Yields the newest frame whenever one is requested.
   * @param {AbortSignal} signal
   */
  async *frames(signal) {
    const canvas = document.createElement("canvas");
    while (!signal.aborted) {
      const { videoWidth, videoHeight } = this.video;
      const scale = Math.min(1, MAX_SIDE / Math.max(videoWidth, videoHeight));
      canvas.width = Math.max(1, Math.round(videoWidth * scale));
      canvas.height = Math.max(1, Math.round(videoHeight * scale));
      canvas.getContext("2d")?.drawImage(this.video, 0, 0, canvas.width, canvas.height);
      yield canvas;
      // Hidden tabs get no animation frames, so they request no camera frames.
      await new Promise(requestAnimationFrame);
    }
  }
}

function words(/** @type {DOMException} */ { name, message }) {
  if (name === "NotAllowedError") return "Access to the camera was denied. You can change that in the browser’s address bar.";
  if (name === "NotFoundError") return "No camera was found.";
  if (name === "NotReadableError") return "The camera is in use by another program.";
  return `The camera cannot be used (${message}).`;
}
