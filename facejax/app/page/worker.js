// Runs the networks in their own thread, so that the page stays responsive.

import * as ort from "./onnxruntime/ort.wasm.bundle.min.js";
import { Bundle } from "./bundle.js";

ort.env.wasm.wasmPaths = { wasm: new URL("./onnxruntime/ort-wasm-simd-threaded.wasm", import.meta.url).href };
// More threads would need headers (COOP, COEP) that static hosts do not send.
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";

const bundle = Bundle.open(ort, new URL("./bundle/", import.meta.url), (done, total) =>
  postMessage({ kind: "progress", done, total }),
);
bundle.then(
  () => postMessage({ kind: "ready" }),
  (error) => postMessage({ kind: "failed", message: String(error.message ?? error) }),
);

// One photo at a time: sessions cannot run concurrently.
let queue = Promise.resolve();
addEventListener("message", ({ data: { id, photo } }) => {
  queue = queue.then(async () => {
    try {
      postMessage({ kind: "result", id, result: await (await bundle).analyze(photo) });
    } catch (error) {
      postMessage({ kind: "error", id, message: String(error?.message ?? error) });
    }
  });
});
