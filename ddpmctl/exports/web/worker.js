// The worker: it holds the model and computes, so that the page stays responsive.

/** @type {Denoiser | null} */
let denoiser = null;

/** The number of the newest request: an older one stops at its next step. */
let newest = 0;

/** Lets the next message in. Unlike a timer, a message is not delayed. */
const pause = (() => {
  const channel = new MessageChannel();
  /** @type {(() => void)[]} */
  const waiting = [];
  channel.port1.onmessage = () => waiting.shift()?.();
  return () => new Promise((/** @type {(value?: undefined) => void} */ resolve) => {
    waiting.push(() => resolve());
    channel.port2.postMessage(null);
  });
})();

/** @param {string} text base64 @returns {Uint8Array} */
function bytesOf(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/** The parts of the weights that have come. @type {Uint8Array[]} */
let parts = [];

/** @returns {Uint8Array<ArrayBuffer>} */
function joinedBytes() {
  const bytes = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  parts = [];
  return bytes;
}

/** Half precision to single. @param {Uint16Array} halves @returns {Float32Array} */
function singles(halves) {
  const values = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) {
    const half = halves[i];
    const exponent = (half >> 10) & 31;
    const fraction = half & 1023;
    const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : (fraction / 1024) * 2 ** -14;
    values[i] = half & 0x8000 ? -size : size;
  }
  return values;
}

/** Read the weights, and measure how long an evaluation takes. @param {LoadMessage} message @returns {Loaded} */
function load({ page, code, compiled }) {
  const bytes = joinedBytes();
  const arrays = new Map();
  let at = 0;
  for (const [name, shape] of page.tensors) {
    const count = shape.reduce((product, side) => product * side, 1);
    arrays.set(name, { shape, data: singles(new Uint16Array(bytes.buffer, at, count)) });
    at += 2 * count;
  }
  const made = new Denoiser(page, new Weights(arrays), new Multiplier(bytesOf(code), compiled));
  const x = made.noise(0n, 0);
  // The first passes are slower: the browser compiles what is called often.
  const times = [0, 1, 2].map(() => {
    const start = performance.now();
    made.output(x, Math.floor(page.alpha_bar.length / 2), 0);
    return (performance.now() - start) / 1000;
  });
  denoiser = made;
  return { seconds: Math.min(...times), engine: made.multiplier.name };
}

/**
 * The results of a request, one by one.
 *
 * @param {SampleMessage | ClassifyMessage} message @param {Denoiser} model @returns {Generator<WorkerResult>}
 */
function* results(message, model) {
  if (message.kind === "sample") {
    const start = performance.now();
    const before = model.evaluations;
    for (const { index, t, x, x0, steps } of model.sample(message.request)) {
      const seconds = (performance.now() - start) / 1000;
      const evaluations = model.evaluations - before;
      yield { index, t, steps, seconds, evaluations, x: model.toPixels(x), x0: model.toPixels(x0) };
    }
  } else {
    yield* model.classify(message.request.image, message.request.draws);
  }
}

onmessage = async (event) => {
  const data = /** @type {WorkerRequest} */ (event.data);
  const id = data.id;
  newest = id;
  try {
    if (data.kind === "weights") {
      parts.push(bytesOf(data.part));
    } else if (data.kind === "load") {
      postMessage({ id, result: load(data) });
    } else if (denoiser && data.kind !== "stop") {
      for (const result of results(data, denoiser)) {
        postMessage({ id, result });
        await pause();
        if (id !== newest) break;
      }
    }
    postMessage({ id, done: true, stopped: id !== newest });
  } catch (error) {
    postMessage({ id, error: error instanceof Error ? error.message : String(error) });
  }
};
