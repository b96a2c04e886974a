// Runs the networks in the server that sent the page, on the same machine.

import { EngineError } from "./engine.js";

/** @typedef {import("./engine.js").Engine} Engine */

/** @implements {Engine} */
export class ServerEngine {
  place = "The networks run on this machine; nothing leaves it.";

  async open() {}

  /** @type {Engine["photo"]} */
  async photo(file, picture, signal) {
    return (await post("api/photo", file, signal)).json();
  }

  /** @type {Engine["frame"]} */
  async frame(canvas, signal) {
    const file = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
    return this.photo(file, null, signal);
  }

  /** @type {Engine["clip"]} */
  async *clip(file, signal) {
    const { body } = await post("api/clip", file, signal);
    let rest = "";
    for await (const text of pieces(/** @type {ReadableStream<Uint8Array>} */ (body), signal)) {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) yield JSON.parse(line);
    }
  }
}

/** Sends a file; throws the server's error message. */
async function post(/** @type {string} */ path, /** @type {Blob} */ file, /** @type {AbortSignal} */ signal) {
  let response;
  try {
    const headers = { "Content-Type": "application/octet-stream" };
    response = await fetch(path, { method: "POST", body: file, headers, signal });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new EngineError("The server does not respond. Is facejax still running?");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  throw new EngineError(told?.error?.message ?? `The server responded with status ${response.status}.`);
}

/** Yields a body as chunks of text; not every browser can iterate over streams. */
async function* pieces(/** @type {ReadableStream<Uint8Array>} */ body, /** @type {AbortSignal} */ signal) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error) => {
        throw signal.aborted ? error : new EngineError("The server has stopped responding. Is facejax still running?");
      });
      if (done) return;
      yield decoder.decode(value, { stream: true });
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
