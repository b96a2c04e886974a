// Shows the photo, the clip or the camera's picture.

export class Stage {
  /** @type {AbortController | null} */
  #clip = null;

  /**
   * @param {HTMLElement} frame
   * @param {HTMLCanvasElement} picture
   * @param {HTMLVideoElement} video
   * @param {HTMLElement} empty
   */
  constructor(frame, picture, video, empty) {
    this.frame = frame;
    this.picture = picture;
    this.video = video;
    this.empty = empty;
    this.clear();
  }

  clear() {
    this.#clip?.abort();
    this.#clip = null;
    this.#only(this.empty);
    this.frame.classList.add("free");
    this.frame.style.aspectRatio = this.frame.style.maxWidth = "";
  }

  showPicture(/** @type {ImageBitmap} */ bitmap) {
    this.picture.width = bitmap.width;
    this.picture.height = bitmap.height;
    this.picture.getContext("2d")?.drawImage(bitmap, 0, 0);
    this.#show(this.picture, bitmap.width, bitmap.height);
  }

  /** Shows a blank canvas for the boxes, in place of a picture that the browser cannot show. */
  showBlank(/** @type {number} */ width, /** @type {number} */ height) {
    this.picture.width = width;
    this.picture.height = height;
    this.#show(this.picture, width, height);
  }

  showCamera(/** @type {number} */ width, /** @type {number} */ height) {
    this.#show(this.video, width, height);
  }

  /**
   * Shows a clip; resolves to whether the browser can play it.
   * @param {Blob} file
   * @param {AbortSignal} signal
   * @param {(time: number) => void} moved  Called with the current time in seconds.
   * @returns {Promise<boolean>}
   */
  showClip(file, signal, moved) {
    const clip = (this.#clip = new AbortController());
    const { video } = this;
    const address = URL.createObjectURL(file);
    clip.signal.addEventListener("abort", () => {
      video.removeAttribute("src");
      video.load();
      URL.revokeObjectURL(address);
    });
    let next = 0;
    const follow = () => {
      cancelAnimationFrame(next); // only one loop, however often the clip is started or sought
      if (clip.signal.aborted) return;
      moved(video.currentTime);
      if (!video.paused) next = requestAnimationFrame(follow);
    };
    for (const name of ["play", "seeked"]) video.addEventListener(name, follow, { signal: clip.signal });
    video.controls = true;
    return new Promise((resolve) => {
      const once = { once: true, signal: clip.signal };
      clip.signal.addEventListener("abort", () => resolve(false));
      video.addEventListener("error", () => resolve(false), once);
      video.addEventListener(
        "loadedmetadata",
        () => {
          // If the browser does not support its video codec, only the sound is loaded.
          if (!video.videoWidth) return resolve(false);
          this.#show(video, video.videoWidth, video.videoHeight);
          resolve(true);
        },
        once,
      );
      video.src = address;
      if (signal.aborted) clip.abort();
    });
  }

  /** Calls back with any file dropped on the page. */
  onDrop(/** @type {(file: File) => void} */ take) {
    addEventListener("dragover", (event) => {
      event.preventDefault();
      this.frame.classList.add("over");
    });
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) this.frame.classList.remove("over");
    });
    addEventListener("drop", (event) => {
      event.preventDefault();
      this.frame.classList.remove("over");
      const [file] = event.dataTransfer?.files ?? [];
      if (file) take(file);
    });
  }

  #show(/** @type {HTMLElement} */ part, /** @type {number} */ width, /** @type {number} */ height) {
    this.#only(part);
    this.frame.classList.remove("free");
    this.frame.style.aspectRatio = `${width} / ${height}`;
    this.frame.style.maxWidth = `calc(72vh * ${width / height})`;
  }

  #only(/** @type {HTMLElement} */ part) {
    for (const other of [this.picture, this.video, this.empty]) other.hidden = other !== part;
  }
}
