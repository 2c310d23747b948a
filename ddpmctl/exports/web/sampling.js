// From noise to an image: ddpmctl/core/samplers.py, guidance.py and diffusion.py, for one image.

/**
 * `steps` timesteps from T - 1 down, evenly spaced (Lin et al. 2024).
 *
 * @param {number} timesteps @param {number} steps @returns {number[]}
 */
function trailingTimesteps(timesteps, steps) {
  return Array.from({ length: steps }, (_, i) => roundHalfToEven(timesteps - (i * timesteps) / steps) - 1);
}

/** As Python and torch round. @param {number} value */
function roundHalfToEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Weighted sum, elementwise. @param {[number, Float32Array][]} terms @returns {Float32Array} */
function combine(...terms) {
  const sum = new Float32Array(terms[0][1].length);
  for (let i = 0; i < sum.length; i++) {
    let value = 0;
    for (const [factor, array] of terms) value += factor * array[i];
    sum[i] = value;
  }
  return sum;
}

/** A model in memory, and what it predicts. */
class Denoiser {
  /** @param {PageModel} page @param {Weights} weights @param {Multiplier} multiplier */
  constructor(page, weights, multiplier) {
    this.page = page;
    this.multiplier = multiplier;
    this.network = buildNetwork(multiplier, weights, page);
    /** Network function evaluations so far. */
    this.evaluations = 0;
  }

  /** @param {number} t `alpha_bar`; 1 for the clean image, t = -1 */
  signal(t) {
    return t < 0 ? 1 : this.page.alpha_bar[t];
  }

  /** Noise of the shape of an image. @param {bigint} seed @param {number} draw */
  noise(seed, draw) {
    const { channels, sample_size: side } = this.page.model;
    return normal(seed, draw, channels * side * side);
  }

  /** The model output for one class. @param {Float32Array} x @param {number} t @param {number} label */
  output(x, t, label) {
    const { channels, sample_size: side } = this.page.model;
    this.evaluations++;
    return this.network.forward(new Tensor(x, channels, side, side), t, label).data;
  }

  /**
   * The model output of a mixture of classes, guided: `uncond + scale (cond - uncond)` (Ho & Salimans 2022).
   *
   * @param {Float32Array} x @param {number} t @param {Mixture} mixture @param {number} scale
   */
  guided(x, t, mixture, scale) {
    /** @type {[number, Float32Array][]} */
    const parts = mixture.filter(([, weight]) => weight > 0).map(([label, weight]) => [weight, this.output(x, t, label)]);
    const cond = parts.length === 1 ? parts[0][1] : combine(...parts);
    if (scale === 1) return cond;
    const uncond = this.output(x, t, this.page.model.num_classes);
    return combine([1 - scale, uncond], [scale, cond]);
  }

  /**
   * The velocity of the Gaussian denoiser alone, guided: without evaluations of the network.
   *
   * @param {Float32Array} x @param {number} t @param {Mixture} mixture @param {number} scale
   */
  closedForm(x, t, mixture, scale) {
    const { channels, sample_size: side, num_classes: classes } = this.page.model;
    const gaussian = /** @type {GaussianResidual} */ (this.network);
    const [alpha, sigma] = [Math.sqrt(this.signal(t)), Math.sqrt(1 - this.signal(t))].map(Math.fround);
    /** @type {(label: number) => Float32Array} */
    const velocity = (label) => gaussian.velocity(new Tensor(x, channels, side, side), alpha, sigma, label).data;
    /** @type {[number, Float32Array][]} */
    const parts = mixture.filter(([, weight]) => weight > 0).map(([label, weight]) => [weight * scale, velocity(label)]);
    return combine(...parts, [1 - scale, velocity(classes)]);
  }

  /** The clean image that a model output predicts. @param {Float32Array} x @param {number} t @param {Float32Array} output */
  toX0(x, t, output) {
    const alpha = Math.fround(Math.sqrt(this.page.alpha_bar[t]));
    const sigma = Math.fround(Math.sqrt(1 - this.page.alpha_bar[t]));
    const kind = this.page.parameterization;
    if (kind === "x0") return output;
    return kind === "v" ? combine([alpha, x], [-sigma, output]) : combine([1 / alpha, x], [-sigma / alpha, output]);
  }

  /** Toward the range of the pixels. @param {Float32Array} x0 */
  clip(x0) {
    const [low, high] = this.page.pixel_range;
    return this.page.clip_x0 ? x0.map((value) => Math.min(high, Math.max(low, value))) : x0;
  }

  /**
   * The steps of a chain.
   *
   * @param {SampleRequest} request
   * @returns {Generator<{index: number, t: number, x: Float32Array, x0: Float32Array, steps: number}>}
   */
  *sample(request) {
    const { sampler, guidance, interval, mixture } = request;
    const { closed_form: beginning, chain_length: end } = this.page;
    const length = this.page.alpha_bar.length;
    const all = [...(beginning ? beginning.timesteps : []), ...trailingTimesteps(end, request.steps)];
    let draws = 0;
    const noise = () => this.noise(request.seed, draws++);
    let timesteps = all;
    let x = noise();
    if (request.start) {
      // SDEdit (Meng et al. 2022): noise is added to the picture, and the chain starts from there.
      const first = roundHalfToEven(request.strength * length) - 1;
      timesteps = all.filter((t) => t <= first);
      if (!timesteps.length) timesteps = all.slice(-1);
      const signal = this.signal(timesteps[0]);
      x = combine([Math.sqrt(signal), request.start], [Math.sqrt(1 - signal), x]);
    }
    /** @type {(x: Float32Array, t: number) => Float32Array} */
    const predict = (noisy, t) => {
      if (beginning && t >= end) {
        const [low, high] = beginning.guidance_interval;
        const scale = low <= t / length && t / length <= high ? beginning.guidance : 1;
        return this.clip(this.toX0(noisy, t, this.closedForm(noisy, t, mixture, scale)));
      }
      const inside = interval[0] <= t / length && t / length <= interval[1];
      return this.clip(this.toX0(noisy, t, this.guided(noisy, t, mixture, inside ? guidance : 1)));
    };
    /** @type {{h: number, x0: Float32Array} | null} */
    let previous = null;
    for (let index = 0; index < timesteps.length; index++) {
      const t = timesteps[index];
      const next = index + 1 < timesteps.length ? timesteps[index + 1] : -1;
      const [signal, signalNext] = [this.signal(t), this.signal(next)];
      const x0 = predict(x, t);
      // Steps without the network are many and cheap, whatever the sampler.
      const kind = t >= end ? "dpmpp" : sampler;
      if (t < end && timesteps[index - 1] >= end) previous = null;
      if (kind === "ddpm") {
        const beta = 1 - signal / signalNext;
        const ofX0 = (Math.sqrt(signalNext) * beta) / (1 - signal);
        const ofX = (Math.sqrt(1 - beta) * (1 - signalNext)) / (1 - signal);
        x = combine([ofX0, x0], [ofX, x]);
        if (next >= 0) {
          const variance = request.steps === end ? beta : (beta * (1 - signalNext)) / (1 - signal);
          x = combine([1, x], [Math.sqrt(variance), noise()]);
        }
      } else if (kind === "ddim") {
        const epsilon = combine([1 / Math.sqrt(1 - signal), x], [-Math.sqrt(signal / (1 - signal)), x0]);
        x = combine([Math.sqrt(signalNext), x0], [Math.sqrt(1 - signalNext), epsilon]);
      } else if (next < 0) {
        x = x0;
      } else {
        // DPM-Solver++(2M), deterministic or as an SDE (Lu et al. 2022).
        const h = (Math.log(signalNext / (1 - signalNext)) - Math.log(signal / (1 - signal))) / 2;
        const ratio = previous ? h / (2 * previous.h) : 0;
        const corrected = previous ? combine([1 + ratio, x0], [-ratio, previous.x0]) : x0;
        const shrink = Math.sqrt((1 - signalNext) / (1 - signal));
        if (kind === "dpmpp") {
          x = combine([shrink, x], [-Math.sqrt(signalNext) * Math.expm1(-h), corrected]);
        } else {
          const lost = -Math.expm1(-2 * h);
          x = combine(
            [shrink * Math.exp(-h), x],
            [Math.sqrt(signalNext) * lost, corrected],
            [Math.sqrt(1 - signalNext) * Math.sqrt(lost), noise()],
          );
        }
        previous = { h, x0 };
      }
      yield { index, t, x, x0, steps: timesteps.length };
    }
  }

  /**
   * Squared error of the predicted velocity by class, from the same noise for all: the diffusion classifier
   * (Li et al. 2023). The class of the smallest error is the model's answer.
   *
   * @param {Float32Array} x0 @param {number} draws
   * @returns {Generator<{draw: number, errors: number[]}>} mean errors so far
   */
  *classify(x0, draws) {
    const classes = this.page.model.num_classes;
    const sums = new Array(classes).fill(0);
    for (let draw = 0; draw < draws; draw++) {
      // Middle noise levels: near the image every class predicts it, near the noise none.
      const t = Math.floor(this.page.alpha_bar.length * (0.25 + (0.5 * (draw + 0.5)) / draws));
      const [alpha, sigma] = [Math.sqrt(this.signal(t)), Math.sqrt(1 - this.signal(t))];
      const x = combine([alpha, x0], [sigma, this.noise(0n, draw)]);
      for (let label = 0; label < classes; label++) {
        const predicted = this.clip(this.toX0(x, t, this.output(x, t, label)));
        let sum = 0;
        for (let i = 0; i < x0.length; i++) sum += (predicted[i] - x0[i]) ** 2;
        // (x0 - predicted) / sigma is the error of the velocity.
        sums[label] += sum / x0.length / (sigma * sigma);
        yield { draw, errors: sums.map((value) => value / (draw + 1)) };
      }
    }
  }

  /** Bytes of an image, at the size of files: [row][column][channel]. @param {Float32Array} x @returns {Uint8ClampedArray} */
  toPixels(x) {
    const { channels, sample_size: side, image_size: size } = this.page.model;
    const [low, high] = this.page.pixel_range;
    const bytes = new Uint8Array(x.length);
    for (let i = 0; i < x.length; i++) {
      const value = Math.min(high, Math.max(low, x[i])) - low;
      bytes[i] = roundHalfToEven(Math.fround(value * Math.fround(255 / (high - low))));
    }
    const pixels = new Uint8ClampedArray(channels * size * size);
    for (let c = 0; c < channels; c++) {
      const plane = resized(bytes.subarray(c * side * side, (c + 1) * side * side), side, size);
      for (let i = 0; i < plane.length; i++) pixels[i * channels + c] = plane[i];
    }
    return pixels;
  }
}

/**
 * A square image enlarged bilinearly, as training images are resized.
 *
 * @param {Uint8Array} plane @param {number} side @param {number} size @returns {Uint8Array}
 */
function resized(plane, side, size) {
  if (side === size) return plane;
  const scale = side / size;
  const places = Array.from({ length: size }, (_, i) => {
    const at = Math.min(side - 1, Math.max(0, (i + 0.5) * scale - 0.5));
    const low = Math.min(side - 2, Math.floor(at));
    return { low, share: at - low };
  });
  // Rows first, each rounded to bytes, as torch resizes uint8.
  const narrow = new Uint8Array(side * size);
  for (let y = 0; y < side; y++)
    places.forEach(({ low, share }, x) => {
      const [a, b] = [plane[y * side + low], plane[y * side + low + 1]];
      narrow[y * size + x] = Math.floor(a + (b - a) * share + 0.5);
    });
  const result = new Uint8Array(size * size);
  places.forEach(({ low, share }, y) => {
    for (let x = 0; x < size; x++) {
      const [a, b] = [narrow[low * size + x], narrow[(low + 1) * size + x]];
      result[y * size + x] = Math.floor(a + (b - a) * share + 0.5);
    }
  });
  return result;
}
