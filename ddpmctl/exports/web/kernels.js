// Matrix products and the layers made of them. A tensor is a Float32Array in C order [channel][row][column].

/**
 * Multiplies matrices in WebAssembly with SIMD, or in plain JavaScript where a browser has neither.
 *
 * The left matrices are the weights: placed once, in blocks of 4 rows, [m / 4][k][4]. The right one is written into
 * `columns` in panels of 8 columns, [n / 8][k][8], so that both are read in the order in which they lie in memory.
 */
class Multiplier {
  /** @param {Uint8Array} code of multiply.wasm @param {boolean} allowed whether WebAssembly may be used */
  constructor(code, allowed) {
    /** The number of floats that are placed. */
    this.placed = 0;
    /** All numbers: the placed matrices, then columns and results. */
    this.floats = new Float32Array(0);
    this.columnsAt = 0;
    this.resultsAt = 0;
    /** @type {WebAssembly.Memory | null} */
    this.memory = null;
    /** @type {((a: number, b: number, c: number, m: number, n: number, k: number) => void) | null} */
    this.compiled = null;
    if (allowed && typeof WebAssembly === "object") {
      try {
        const memory = new WebAssembly.Memory({ initial: 1 });
        const bytes = /** @type {Uint8Array<ArrayBuffer>} */ (code);
        const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), { page: { memory } });
        this.compiled = /** @type {any} */ (instance.exports.multiply);
        this.memory = memory;
        this.floats = new Float32Array(memory.buffer);
      } catch {
        // No SIMD, or a policy that forbids WebAssembly: JavaScript gives the same numbers, more slowly.
      }
    }
  }

  /** How it multiplies, for the reader of the page. */
  get name() {
    return this.compiled ? "WebAssembly with SIMD" : "plain JavaScript";
  }

  /**
   * Place a left matrix; its rows are padded with zeros to a multiple of 4.
   *
   * @param {Float32Array} rows [m][k] @param {number} m @param {number} k
   * @returns {number} where it lies
   */
  place(rows, m, k) {
    const at = this.placed;
    const blocks = Math.ceil(m / 4);
    this.placed += blocks * 4 * k;
    this.grow(this.placed);
    for (let row = 0; row < m; row++) {
      const start = at + (row >> 2) * 4 * k + (row & 3);
      for (let p = 0; p < k; p++) this.floats[start + 4 * p] = rows[row * k + p];
    }
    return at;
  }

  /**
   * Make room for the columns and the result of a product.
   *
   * @param {number} m a multiple of 4 @param {number} n a multiple of 8 @param {number} k
   */
  reserve(m, n, k) {
    this.columnsAt = Math.ceil(this.placed / 4) * 4;
    this.resultsAt = this.columnsAt + n * k;
    this.grow(this.resultsAt + m * n);
  }

  /** @param {number} count */
  grow(count) {
    if (count <= this.floats.length) return;
    if (this.memory) {
      const missing = 4 * count - this.memory.buffer.byteLength;
      this.memory.grow(Math.ceil(missing / 65536) + 64);
      this.floats = new Float32Array(this.memory.buffer);
    } else {
      const larger = new Float32Array(count + 1048576);
      larger.set(this.floats);
      this.floats = larger;
    }
  }

  /**
   * The product of a placed matrix and the columns, [m][n] in rows, at `resultsAt`.
   *
   * @param {number} at @param {number} m a multiple of 4 @param {number} n a multiple of 8 @param {number} k
   */
  multiply(at, m, n, k) {
    if (this.compiled) this.compiled(4 * at, 4 * this.columnsAt, 4 * this.resultsAt, m, n, k);
    else this.multiplyPlain(at, m, n, k);
  }

  /** @param {number} at @param {number} m @param {number} n @param {number} k */
  multiplyPlain(at, m, n, k) {
    const f = this.floats;
    for (let column = 0; column < n; column += 2) {
      const panel = this.columnsAt + (column >> 3) * 8 * k + (column & 7);
      for (let row = 0; row < m; row += 4) {
        let a = at + row * k;
        let b = panel;
        let r00 = 0, r01 = 0, r10 = 0, r11 = 0, r20 = 0, r21 = 0, r30 = 0, r31 = 0;
        for (let p = 0; p < k; p++) {
          const left = f[b], right = f[b + 1];
          r00 += f[a] * left;
          r01 += f[a] * right;
          r10 += f[a + 1] * left;
          r11 += f[a + 1] * right;
          r20 += f[a + 2] * left;
          r21 += f[a + 2] * right;
          r30 += f[a + 3] * left;
          r31 += f[a + 3] * right;
          a += 4;
          b += 8;
        }
        const c = this.resultsAt + row * n + column;
        f[c] = r00;
        f[c + 1] = r01;
        f[c + n] = r10;
        f[c + n + 1] = r11;
        f[c + 2 * n] = r20;
        f[c + 2 * n + 1] = r21;
        f[c + 3 * n] = r30;
        f[c + 3 * n + 1] = r31;
      }
    }
  }
}

/** An image of several channels. */
class Tensor {
  /** @param {Float32Array} data @param {number} channels @param {number} height @param {number} width */
  constructor(data, channels, height, width) {
    this.data = data;
    this.channels = channels;
    this.height = height;
    this.width = width;
  }
}

/** Convolution as a matrix product: each column is the neighbourhood of an output pixel (im2col). */
class Convolution {
  /**
   * @param {Multiplier} multiplier
   * @param {Weights} weights
   * @param {string} name of the layer
   * @param {number} [stride]
   */
  constructor(multiplier, weights, name, stride = 1) {
    const weight = weights.get(`${name}.weight`);
    this.multiplier = multiplier;
    this.stride = stride;
    this.outputs = weight.shape[0];
    this.side = weight.shape[2];
    this.k = weight.shape[1] * this.side * this.side;
    this.bias = weights.get(`${name}.bias`).data;
    this.at = multiplier.place(weight.data, this.outputs, this.k);
  }

  /** @param {Tensor} x @returns {Tensor} */
  forward(x) {
    const pad = this.side >> 1;
    const height = Math.floor((x.height + 2 * pad - this.side) / this.stride) + 1;
    const width = Math.floor((x.width + 2 * pad - this.side) / this.stride) + 1;
    const pixels = height * width;
    const m = Math.ceil(this.outputs / 4) * 4;
    const n = Math.ceil(pixels / 8) * 8;
    this.multiplier.reserve(m, n, this.k);
    this.write(x, pad, height, width);
    this.multiplier.multiply(this.at, m, n, this.k);
    const { floats, resultsAt } = this.multiplier;
    const y = new Float32Array(this.outputs * pixels);
    for (let c = 0; c < this.outputs; c++) {
      const from = resultsAt + c * n, to = c * pixels, bias = this.bias[c];
      for (let i = 0; i < pixels; i++) y[to + i] = floats[from + i] + bias;
    }
    return new Tensor(y, this.outputs, height, width);
  }

  /** @param {Tensor} x @param {number} pad @param {number} height @param {number} width */
  write(x, pad, height, width) {
    const { floats, columnsAt } = this.multiplier;
    const { data } = x;
    const k = this.k;
    let p = 0;
    for (let c = 0; c < x.channels; c++) {
      const plane = c * x.height * x.width;
      for (let ky = 0; ky < this.side; ky++) {
        for (let kx = 0; kx < this.side; kx++, p++) {
          let output = 0;
          for (let row = 0; row < height; row++) {
            const y = row * this.stride + ky - pad;
            const inside = y >= 0 && y < x.height;
            const line = plane + y * x.width;
            for (let column = 0; column < width; column++, output++) {
              const from = column * this.stride + kx - pad;
              floats[columnsAt + ((output >> 3) * k + p) * 8 + (output & 7)] =
                inside && from >= 0 && from < x.width ? data[line + from] : 0;
            }
          }
        }
      }
    }
  }
}

/** Transposed convolution of 2x2 with stride 2: doubles height and width. */
class Upsampling {
  /** @param {Multiplier} multiplier @param {Weights} weights @param {string} name */
  constructor(multiplier, weights, name) {
    const weight = weights.get(`${name}.weight`);
    this.multiplier = multiplier;
    this.k = weight.shape[0];
    this.outputs = weight.shape[1];
    this.bias = weights.get(`${name}.bias`).data;
    const rows = new Float32Array(weight.data.length);
    const m = 4 * this.outputs;
    for (let p = 0; p < this.k; p++) for (let row = 0; row < m; row++) rows[row * this.k + p] = weight.data[p * m + row];
    this.at = multiplier.place(rows, m, this.k);
  }

  /** @param {Tensor} x @returns {Tensor} */
  forward(x) {
    const pixels = x.height * x.width;
    const m = 4 * this.outputs;
    const n = Math.ceil(pixels / 8) * 8;
    this.multiplier.reserve(m, n, this.k);
    const { floats, columnsAt, resultsAt } = this.multiplier;
    for (let p = 0; p < this.k; p++)
      for (let i = 0; i < pixels; i++) floats[columnsAt + ((i >> 3) * this.k + p) * 8 + (i & 7)] = x.data[p * pixels + i];
    this.multiplier.multiply(this.at, m, n, this.k);
    const y = new Float32Array(4 * this.outputs * pixels);
    const width = 2 * x.width;
    for (let row = 0; row < m; row++) {
      const c = row >> 2, dy = (row >> 1) & 1, dx = row & 1;
      for (let i = 0; i < pixels; i++) {
        const line = 2 * Math.floor(i / x.width) + dy;
        y[c * 4 * pixels + line * width + 2 * (i % x.width) + dx] = floats[resultsAt + row * n + i] + this.bias[c];
      }
    }
    return new Tensor(y, this.outputs, 2 * x.height, width);
  }
}

/** A linear layer of one vector. */
class Linear {
  /** @param {Weights} weights @param {string} name */
  constructor(weights, name) {
    this.weight = weights.get(`${name}.weight`);
    this.bias = weights.get(`${name}.bias`).data;
  }

  /** @param {Float32Array} x @returns {Float32Array} */
  forward(x) {
    const [outputs, inputs] = this.weight.shape;
    const y = new Float32Array(outputs);
    for (let o = 0; o < outputs; o++) {
      let sum = this.bias[o];
      for (let i = 0; i < inputs; i++) sum += this.weight.data[o * inputs + i] * x[i];
      y[o] = sum;
    }
    return y;
  }
}

/**
 * Normalization of an image: GroupNorm (Wu & He 2018), or BatchNorm (Ioffe & Szegedy 2015) with its running statistics.
 */
class Norm {
  /** @param {Weights} weights @param {string} name @param {number} groups 0 for BatchNorm */
  constructor(weights, name, groups) {
    this.scale = weights.get(`${name}.weight`).data;
    this.shift = weights.get(`${name}.bias`).data;
    this.groups = groups;
    this.mean = groups ? null : weights.get(`${name}.running_mean`).data;
    this.variance = groups ? null : weights.get(`${name}.running_var`).data;
  }

  /** @param {Tensor} x @returns {Tensor} */
  forward(x) {
    const y = new Float32Array(x.data.length);
    const pixels = x.height * x.width;
    const groups = this.groups || x.channels;
    const channels = x.channels / groups;
    for (let g = 0; g < groups; g++) {
      const [start, end] = [g * channels * pixels, (g + 1) * channels * pixels];
      let mean = 0;
      let variance = 0;
      if (this.mean && this.variance) {
        mean = this.mean[g];
        variance = this.variance[g];
      } else {
        for (let i = start; i < end; i++) mean += x.data[i];
        mean /= end - start;
        for (let i = start; i < end; i++) variance += (x.data[i] - mean) ** 2;
        variance /= end - start;
      }
      const inverse = 1 / Math.sqrt(variance + 1e-5);
      for (let c = g * channels; c < (g + 1) * channels; c++) {
        const a = inverse * this.scale[c];
        const b = this.shift[c] - mean * a;
        for (let i = c * pixels; i < (c + 1) * pixels; i++) y[i] = a * x.data[i] + b;
      }
    }
    return new Tensor(y, x.channels, x.height, x.width);
  }
}

/** Leaky ReLU with slope 0.1, in place. @param {Float32Array} values @returns {Float32Array} */
function leakyRelu(values) {
  for (let i = 0; i < values.length; i++) if (values[i] < 0) values[i] *= 0.1;
  return values;
}

/** `leakyRelu` of an image, in place. @param {Tensor} x @returns {Tensor} */
function activate(x) {
  leakyRelu(x.data);
  return x;
}

/** Add the second to the first, in place. @param {Tensor} x @param {Tensor} y @returns {Tensor} */
function add(x, y) {
  for (let i = 0; i < x.data.length; i++) x.data[i] += y.data[i];
  return x;
}

/** Add one value to each channel, in place. @param {Tensor} x @param {Float32Array} values @returns {Tensor} */
function addToChannels(x, values) {
  const pixels = x.height * x.width;
  for (let c = 0; c < x.channels; c++) for (let i = 0; i < pixels; i++) x.data[c * pixels + i] += values[c];
  return x;
}

/** Channels of both, the first cut to the size of the second. @param {Tensor} x @param {Tensor} y @returns {Tensor} */
function concatenate(x, y) {
  const pixels = y.height * y.width;
  const data = new Float32Array((x.channels + y.channels) * pixels);
  for (let c = 0; c < x.channels; c++)
    for (let row = 0; row < y.height; row++) {
      const from = (c * x.height + row) * x.width;
      data.set(x.data.subarray(from, from + y.width), c * pixels + row * y.width);
    }
  data.set(y.data, x.channels * pixels);
  return new Tensor(data, x.channels + y.channels, y.height, y.width);
}
