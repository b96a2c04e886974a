// The page: passes chosen or dropped files and camera frames to an engine, and shows its results.

import { Camera } from "./camera.js";
import { createEngine, EngineError } from "./engine.js";
import { FaceList, summary } from "./faces.js";
import { Stage } from "./stage.js";
import { needsRotation } from "./webp.js";

const element = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
const [fileInput, cameraButton, turnButton, clearButton] = ["file", "camera", "turn", "clear"].map(element);
const [status, alarm, busy] = ["status", "error", "busy"].map(element);

const stage = new Stage(element("stage"), element("picture"), element("video"), element("empty"));
const list = new FaceList(element("boxes"), element("faces"));
const camera = new Camera(element("video"));
/** @type {import("./engine.js").Config} */
let config;
/** @type {import("./engine.js").Engine} */
let engine;
// Cancels the current task when something new is chosen.
let work = new AbortController();

function say(/** @type {string} */ words) {
  if (status.textContent !== words) status.textContent = words;
}

/** Cancels the previous task and runs a new one, showing its errors. */
async function start(/** @type {(signal: AbortSignal) => Promise<void>} */ task) {
  clear();
  const { signal } = work;
  busy.hidden = false;
  clearButton.hidden = false;
  try {
    await task(signal);
  } catch (error) {
    if (signal.aborted) return;
    clear();
    alarm.textContent = error instanceof EngineError ? error.message : `Something went wrong: ${error}`;
    alarm.hidden = false;
    if (!(error instanceof EngineError)) console.error(error);
  } finally {
    if (!signal.aborted) busy.hidden = true;
  }
}

function clear() {
  work.abort();
  work = new AbortController();
  camera.stop();
  stage.clear();
  list.clear();
  say("");
  alarm.hidden = busy.hidden = clearButton.hidden = turnButton.hidden = true;
  cameraButton.textContent = "Use the camera";
  cameraButton.classList.remove("running");
}

function analyzeFile(/** @type {File} */ file) {
  return start(async (signal) => {
    const isClip = file.type.startsWith("video/") || /\.(avi|m4v|mkv|mov|mp4|webm)$/i.test(file.name);
    const allowed = isClip ? config.limits.clip_bytes : config.limits.photo_bytes;
    if (file.size > allowed) {
      const [size, limit] = [file.size, allowed].map((bytes) => Math.ceil(bytes / 2 ** 20));
      throw new EngineError(`This file has ${size} MB; the limit for a ${isClip ? "clip" : "photo"} is ${limit} MB.`);
    }
    await (isClip ? analyzeClip : analyzePhoto)(file, signal);
  });
}

async function analyzePhoto(/** @type {File} */ file, /** @type {AbortSignal} */ signal) {
  say("Looking for faces …");
  // As the Python package reads photos: rotated by EXIF orientation, ignoring colour profiles.
  const picture = await createImageBitmap(file, { colorSpaceConversion: "none" }).catch(() => null);
  if (signal.aborted) return;
  if (picture) stage.showPicture(picture);
  const result = await engine.photo(file, picture, signal);
  if (signal.aborted) return;
  // The server rotates a WebP by its EXIF orientation but Chromium does not: boxes would not fit the picture.
  const turned = config.engine === "server" && (await needsRotation(file));
  if (!picture || turned) stage.showBlank(result.width, result.height);
  list.show(result);
  say(counted(result.faces));
}

async function analyzeClip(/** @type {File} */ file, /** @type {AbortSignal} */ signal) {
  say("Looking for faces …");
  /** @type {import("./engine.js").ClipFrame[]} */
  const frames = [];
  const { clip_seconds, clip_fps } = config.limits;
  const plays = await stage.showClip(file, signal, (time) => {
    const index = frames.findLastIndex((frame) => frame.time <= time + 0.05);
    if (index < 0) return;
    // Nothing is known beyond the last analysed frame.
    const known = index + 1 < frames.length || time - frames[index].time < 2 / clip_fps;
    if (known) list.show(frames[index], true);
    else list.clear();
  });
  for await (const frame of engine.clip(file, signal)) {
    if (signal.aborted) return;
    frames.push(frame);
    if (frames.length === 1) list.show(frame, true);
    say(`Looking for faces: ${frame.time.toFixed(0)} s …`);
  }
  if (!frames.length) throw new EngineError("No frame of this clip can be read.");
  const fullest = frames.reduce((best, frame) => (frame.faces.length > best.faces.length ? frame : best));
  const cut = frames[frames.length - 1].time > clip_seconds - 2 / clip_fps;
  const part = cut ? ` of the first ${clip_seconds} s` : "";
  const told = `${frames.length} frames${part}, at most ${countOf(fullest.faces)} in one.`;
  if (plays) {
    say(`${told} Play the clip to see them.`);
  } else {
    stage.showBlank(fullest.width, fullest.height);
    list.show(fullest);
    say(`${told} This browser cannot play the clip; below are the faces at ${fullest.time.toFixed(1)} s.`);
  }
}

function watchCamera(other = false) {
  return start(async (signal) => {
    say("Waiting for the camera …");
    await camera.start(other, signal);
    cameraButton.textContent = "Stop the camera";
    cameraButton.classList.add("running");
    const several = await camera.hasOther();
    if (signal.aborted) return;
    turnButton.hidden = !several;
    if (other && several) turnButton.focus(); // it lost the focus when hidden during the switch
    stage.showCamera(camera.video.videoWidth, camera.video.videoHeight);
    let faces = -1;
    for await (const canvas of camera.frames(signal)) {
      const result = await engine.frame(canvas, signal);
      if (signal.aborted) return;
      list.show(result, true);
      busy.hidden = true;
      // Screen readers announce the camera's faces only when their number changes.
      if (result.faces.length !== faces) say(counted(result.faces));
      faces = result.faces.length;
    }
  });
}

function countOf(/** @type {unknown[]} */ faces) {
  return faces.length === 1 ? "1 face" : `${faces.length} faces`;
}

function counted(/** @type {import("./engine.js").Face[]} */ faces) {
  if (!faces.length) return "No face was found.";
  return faces.length === 1 ? `1 face: ${summary(faces[0])}.` : `${faces.length} faces.`;
}

fileInput.addEventListener("change", () => {
  const [file] = fileInput.files;
  fileInput.value = "";
  if (file) analyzeFile(file);
});
cameraButton.addEventListener("click", () => (camera.running ? clear() : watchCamera()));
turnButton.addEventListener("click", () => watchCamera(true));
clearButton.addEventListener("click", () => {
  clear();
  fileInput.focus();
});
addEventListener("paste", (event) => {
  const [file] = event.clipboardData?.files ?? [];
  if (file && engine) analyzeFile(file);
});
stage.onDrop((file) => engine && analyzeFile(file));

try {
  const response = await fetch("config.json");
  if (!response.ok) throw new EngineError("config.json is missing: is this the folder that facejax wrote?");
  config = await response.json();
  const networks = config.models.map(({ name, licence }) => `${name} (${licence || "licence not stated"})`);
  element("networks").textContent = `Networks: ${networks.join(", ")}; face detector: MTCNN (MIT).`;
  const opened = await createEngine(config);
  element("place").textContent = opened.place;
  await opened.open(say);
  engine = opened;
  say("");
  fileInput.disabled = false;
  cameraButton.disabled = !navigator.mediaDevices?.getUserMedia;
} catch (error) {
  say("");
  alarm.textContent = error instanceof Error ? error.message : String(error);
  alarm.hidden = false;
}
