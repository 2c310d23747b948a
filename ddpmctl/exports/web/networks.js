// The networks of ddpmctl/core: unet.py, classic.py and gaussian.py, with the names of their weights.

/** The weights of a model by name. */
class Weights {
  /** @param {Map<string, {shape: number[], data: Float32Array}>} arrays @param {string} [prefix] */
  constructor(arrays, prefix = "") {
    this.arrays = arrays;
    this.prefix = prefix;
  }

  /** @param {string} name */
  get(name) {
    const found = this.arrays.get(this.prefix + name);
    if (!found) throw new Error(`the page has no weights '${this.prefix + name}'`);
    return found;
  }

  /** @param {string} name */
  has(name) {
    return this.arrays.has(this.prefix + name);
  }

  /** Those of a module. @param {string} name */
  within(name) {
    return new Weights(this.arrays, `${this.prefix}${name}.`);
  }
}

/**
 * Sines then cosines of the timestep at geometric frequencies from 1 down to 1e-4 (Vaswani et al. 2017, section 3.5).
 *
 * @param {number} t @param {number} size @returns {Float32Array}
 */
function sinusoidal(t, size) {
  const half = size / 2;
  const values = new Float32Array(size);
  for (let i = 0; i < half; i++) {
    // Rounded to float32 as in the program: at t = 999 the angle is sensitive to its last bits.
    const frequency = Math.fround(Math.exp(Math.fround(i * Math.fround(-Math.log(10000) / (half - 1)))));
    const angle = Math.fround(t * frequency);
    values[i] = Math.sin(angle);
    values[half + i] = Math.cos(angle);
  }
  return values;
}

/** The learned vector of a class, then the timestep. @param {Float32Array} label @param {Float32Array} t */
function joined(label, t) {
  const both = new Float32Array(label.length + t.length);
  both.set(label);
  both.set(t, label.length);
  return both;
}

/** Two 3x3 convolutions and a skip connection; the condition modulates the second norm. */
class ResidualBlock {
  /** @param {Multiplier} multiplier @param {Weights} weights @param {(name: string, weights: Weights) => Norm} norm */
  constructor(multiplier, weights, norm) {
    this.norm1 = norm("norm1", weights);
    this.conv1 = new Convolution(multiplier, weights, "conv1");
    this.condition = new Linear(weights, "condition");
    this.norm2 = norm("norm2", weights);
    this.conv2 = new Convolution(multiplier, weights, "conv2");
    this.skip = weights.has("skip.weight") ? new Convolution(multiplier, weights, "skip") : null;
  }

  /** @param {Tensor} x @param {Float32Array} condition @returns {Tensor} */
  forward(x, condition) {
    const h = this.norm2.forward(this.conv1.forward(activate(this.norm1.forward(x))));
    const modulation = this.condition.forward(condition);
    const pixels = h.height * h.width;
    for (let c = 0; c < h.channels; c++) {
      const scale = 1 + modulation[c];
      const shift = modulation[h.channels + c];
      for (let i = c * pixels; i < (c + 1) * pixels; i++) h.data[i] = h.data[i] * scale + shift;
    }
    const change = this.conv2.forward(activate(h));
    return add(change, this.skip ? this.skip.forward(x) : x);
  }
}

/** The U-Net whose blocks are all conditioned on timestep and class. */
class UNet {
  /** @param {Multiplier} multiplier @param {Weights} weights @param {ModelSettings} model */
  constructor(multiplier, weights, model) {
    const { widths, blocks } = model;
    /** @type {(name: string, weights: Weights) => Norm} */
    const norm = (name, of) => {
      const channels = of.get(`${name}.weight`).shape[0];
      return new Norm(of, name, model.norm === "group" ? channels / 16 : 0);
    };
    /** @type {(name: string) => ResidualBlock[]} */
    const stage = (name) =>
      Array.from({ length: blocks }, (_, k) => new ResidualBlock(multiplier, weights.within(`${name}.blocks.${k}`), norm));
    this.patch = model.patch;
    this.size = model.embedding;
    this.labels = weights.get("embedding.label.weight");
    this.condition = new Linear(weights, "condition.0");
    this.bottleneckCondition = new Linear(weights, "bottleneck_condition");
    this.convIn = new Convolution(multiplier, weights, "conv_in");
    this.down = widths.map((_, level) => stage(`down.${level}`));
    this.up = widths.map((_, level) => stage(`up.${level}`));
    this.downsample = widths.slice(1).map((_, k) => new Convolution(multiplier, weights, `downsample.${k}`, 2));
    this.upsample = widths.slice(1).map((_, k) => new Upsampling(multiplier, weights, `upsample.${k}`));
    this.bottleneck = new ResidualBlock(multiplier, weights.within("bottleneck"), norm);
    this.norm = norm("norm", weights);
    this.convOut = new Convolution(multiplier, weights, "conv_out");
  }

  /** The model output. @param {Tensor} x @param {number} t @param {number} label @returns {Tensor} */
  forward(x, t, label) {
    const vector = this.labels.data.subarray(label * this.size, (label + 1) * this.size);
    const embedded = joined(vector, sinusoidal(t, this.size));
    const condition = leakyRelu(this.condition.forward(embedded));
    /** @type {(h: Tensor, blocks: ResidualBlock[]) => Tensor} */
    const run = (h, blocks) => blocks.reduce((value, block) => block.forward(value, condition), h);
    let h = this.convIn.forward(unshuffle(x, this.patch));
    /** @type {Tensor[]} */
    const skips = [];
    this.down.forEach((blocks, level) => {
      h = run(level ? this.downsample[level - 1].forward(h) : h, blocks);
      skips.push(h);
    });
    const start = new Tensor(h.data.slice(), h.channels, h.height, h.width);
    h = this.bottleneck.forward(addToChannels(start, this.bottleneckCondition.forward(embedded)), condition);
    this.up.forEach((blocks, level) => {
      const skip = /** @type {Tensor} */ (skips.pop());
      h = run(concatenate(h, skip), blocks);
      if (level < this.upsample.length) h = this.upsample[level].forward(h);
    });
    return shuffle(this.convOut.forward(activate(this.norm.forward(h))), this.patch);
  }
}

/** Squares of pixels become channels (space to depth). @param {Tensor} x @param {number} patch @returns {Tensor} */
function unshuffle(x, patch) {
  if (patch === 1) return x;
  const [height, width] = [x.height / patch, x.width / patch];
  const y = new Tensor(new Float32Array(x.data.length), x.channels * patch * patch, height, width);
  eachPixel(x, patch, (large, small) => (y.data[small] = x.data[large]));
  return y;
}

/** The inverse of `unshuffle`. @param {Tensor} x @param {number} patch @returns {Tensor} */
function shuffle(x, patch) {
  if (patch === 1) return x;
  const channels = x.channels / (patch * patch);
  const y = new Tensor(new Float32Array(x.data.length), channels, x.height * patch, x.width * patch);
  eachPixel(y, patch, (large, small) => (y.data[large] = x.data[small]));
  return y;
}

/** @param {Tensor} image @param {number} patch @param {(large: number, small: number) => void} visit */
function eachPixel(image, patch, visit) {
  const [height, width] = [image.height / patch, image.width / patch];
  let large = 0;
  for (let c = 0; c < image.channels; c++)
    for (let y = 0; y < image.height; y++)
      for (let x = 0; x < image.width; x++, large++) {
        const channel = (c * patch + (y % patch)) * patch + (x % patch);
        visit(large, (channel * height + Math.floor(y / patch)) * width + Math.floor(x / patch));
      }
}

/** The U-Net of the original scripts, conditioned only at the bottleneck. */
class Classic {
  /** @param {Multiplier} multiplier @param {Weights} weights */
  constructor(multiplier, weights) {
    /** @type {(name: string) => (x: Tensor) => Tensor} */
    const block = (name) => {
      const of = weights.within(name);
      const layers = ["0", "3"].map((k) => new Convolution(multiplier, of, k));
      const norms = ["1", "4"].map((k) => new Norm(of, k, 8));
      return (x) => layers.reduce((h, layer, k) => activate(norms[k].forward(layer.forward(h))), x);
    };
    this.labels = weights.get("label_embedding.weight");
    this.projector = new Linear(weights, "embedding_projector");
    this.down = ["down1", "down2", "down3"].map(block);
    this.bottleneck = block("bottleneck");
    this.up = ["up1", "up2", "up3"].map((name) => new Upsampling(multiplier, weights, name));
    this.decode = ["decode3", "decode2", "decode1"].map(block);
    this.out = new Convolution(multiplier, weights, "final_out");
  }

  /** The model output. @param {Tensor} x @param {number} t @param {number} label @returns {Tensor} */
  forward(x, t, label) {
    /** @type {Tensor[]} */
    const skips = [];
    let h = x;
    for (const down of this.down) {
      skips.push(down(h));
      h = maxPool(skips[skips.length - 1]);
    }
    h = this.bottleneck(h);
    const embedded = joined(this.labels.data.subarray(label * 256, (label + 1) * 256), sinusoidal(t, 256));
    h = addToChannels(h, this.projector.forward(embedded));
    this.up.forEach((up, k) => {
      h = this.decode[k](concatenate(up.forward(h), /** @type {Tensor} */ (skips.pop())));
    });
    return this.out.forward(h);
  }
}

/** The largest of each 2x2 pixels. @param {Tensor} x @returns {Tensor} */
function maxPool(x) {
  const [height, width] = [x.height >> 1, x.width >> 1];
  const y = new Float32Array(x.channels * height * width);
  for (let i = 0; i < y.length; i++) {
    const row = Math.floor(i / width);
    const from = 2 * row * x.width + 2 * (i % width);
    y[i] = Math.max(x.data[from], x.data[from + 1], x.data[from + x.width], x.data[from + x.width + 1]);
  }
  return new Tensor(y, x.channels, height, width);
}

/**
 * A network that corrects the best denoiser of images whose classes are mixtures of Gaussians: it is given the denoiser's
 * velocity as channels, and adds to it.
 */
class GaussianResidual {
  /** @param {Multiplier} multiplier @param {Weights} weights @param {PageModel} page */
  constructor(multiplier, weights, page) {
    const of = weights.within("gaussian");
    this.network = new UNet(multiplier, weights.within("network"), page.model);
    this.mean = of.get("mean");
    this.basis = of.get("basis");
    this.variance = of.get("variance");
    this.rest = of.get("rest").data;
    this.weight = of.get("weight").data;
    this.page = page;
  }

  /** The clusters of a class; those of the null class are all. @param {number} label @returns {[number, number]} */
  clustersOf(label) {
    const [count, classes] = [this.mean.shape[0], this.page.model.num_classes];
    const each = count / classes;
    return label === classes ? [0, count] : [label * each, (label + 1) * each];
  }

  /**
   * The expected velocity, `sum_k p(k | x) (-s m + U diag(a s (1 - w) / (a^2 w + s^2)) U^T (x - a m))`.
   *
   * @param {Tensor} x @param {number} alpha @param {number} sigma @param {number} label @returns {Tensor}
   */
  velocity(x, alpha, sigma, label) {
    const pixels = this.mean.shape[1];
    const [count, rank] = this.variance.shape;
    const [first, end] = this.clustersOf(label);
    /** @type {(w: number) => number} */
    const gain = (w) => (alpha * sigma * (1 - w)) / (alpha * alpha * w + sigma * sigma);
    /** @type {(w: number) => number} */
    const variance = (w) => alpha * alpha * w + sigma * sigma;
    const width = (end - first) * rank;
    const components = new Float64Array(width);
    const square = new Float64Array(end - first);
    for (let i = 0; i < pixels; i++) {
      const row = (i * count + first) * rank;
      for (let k = first; k < end; k++) {
        const y = x.data[i] - alpha * this.mean.data[k * pixels + i];
        const at = (k - first) * rank;
        square[k - first] += y * y;
        for (let r = at; r < at + rank; r++) components[r] += y * this.basis.data[row + r];
      }
    }
    const exponents = square.map((all, k) => {
      const rest = variance(this.rest[first + k]);
      let beyond = all;
      let exponent = (pixels - rank) * Math.log(rest);
      for (let r = 0; r < rank; r++) {
        const own = variance(this.variance.data[(first + k) * rank + r]);
        const energy = components[k * rank + r] ** 2;
        beyond -= energy;
        exponent += energy / own + Math.log(own);
      }
      return Math.log(this.weight[first + k]) - (exponent + beyond / rest) / 2;
    });
    const highest = exponents.reduce((a, b) => Math.max(a, b));
    const likely = exponents.map((exponent) => Math.exp(exponent - highest));
    const total = likely.reduce((a, b) => a + b);
    const v = new Float64Array(pixels);
    for (let k = first; k < end; k++) {
      const posterior = likely[k - first] / total;
      if (posterior < 1e-9) continue;
      const shared = gain(this.rest[k]);
      const at = (k - first) * rank;
      for (let r = 0; r < rank; r++) components[at + r] *= gain(this.variance.data[k * rank + r]) - shared;
      for (let i = 0; i < pixels; i++) {
        const mean = this.mean.data[k * pixels + i];
        const row = (i * count + k) * rank;
        let sum = shared * (x.data[i] - alpha * mean) - sigma * mean;
        for (let r = 0; r < rank; r++) sum += components[at + r] * this.basis.data[row + r];
        v[i] += posterior * sum;
      }
    }
    return new Tensor(Float32Array.from(v), x.channels, x.height, x.width);
  }

  /** The model output. @param {Tensor} x @param {number} t @param {number} label @returns {Tensor} */
  forward(x, t, label) {
    const alpha = Math.fround(Math.sqrt(this.page.alpha_bar[t]));
    const sigma = Math.fround(Math.sqrt(1 - this.page.alpha_bar[t]));
    const v = this.velocity(x, alpha, sigma, label);
    const output = this.network.forward(concatenate(x, v), t, label);
    const kind = this.page.parameterization;
    for (let i = 0; i < v.data.length; i++) {
      const x0 = alpha * x.data[i] - sigma * v.data[i];
      const epsilon = sigma * x.data[i] + alpha * v.data[i];
      output.data[i] += kind === "epsilon" ? epsilon : kind === "x0" ? x0 : v.data[i];
    }
    return output;
  }
}

/** @param {Multiplier} multiplier @param {Weights} weights @param {PageModel} page */
function buildNetwork(multiplier, weights, page) {
  if (page.model.network === "classic") return new Classic(multiplier, weights);
  if (page.model.gaussian_rank) return new GaussianResidual(multiplier, weights, page);
  return new UNet(multiplier, weights, page.model);
}
