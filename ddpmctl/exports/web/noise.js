// Standard normal noise as a function of seed, draw and element: the generator of ddpmctl/core/noise.py, where it is
// defined. A seed gives the same noise here as in the program.

const ROTATIONS = [13, 15, 26, 6, 17, 29, 16, 24];

/**
 * Two random words of a key and a counter: threefry2x32 with 20 rounds (Salmon et al. 2011).
 *
 * @param {number} k0 @param {number} k1 @param {number} c0 @param {number} c1
 * @param {Uint32Array} out the two words
 */
function threefry(k0, k1, c0, c1, out) {
  const keys = [k0, k1, k0 ^ k1 ^ 0x1bd11bda];
  let x0 = (c0 + k0) | 0;
  let x1 = (c1 + k1) | 0;
  for (let round = 0; round < 20; round++) {
    const left = ROTATIONS[round % 8];
    x0 = (x0 + x1) | 0;
    x1 = ((x1 << left) | (x1 >>> (32 - left))) ^ x0;
    if (round % 4 === 3) {
      const n = (round >> 2) + 1;
      x0 = (x0 + keys[n % 3]) | 0;
      x1 = (x1 + keys[(n + 1) % 3] + n) | 0;
    }
  }
  out[0] = x0;
  out[1] = x1;
}

/**
 * Noise of an image, in C order (channel, row, column).
 *
 * @param {bigint} seed 0 to 2**63 - 2
 * @param {number} draw 0 for the noise that a chain starts from, then 1, 2, ...
 * @param {number} count values
 * @returns {Float32Array}
 */
function normal(seed, draw, count) {
  const low = Number(seed & 0xffffffffn) | 0;
  const high = Number(seed >> 32n) | 0;
  const words = new Uint32Array(2);
  const values = new Float32Array(count);
  for (let pair = 0; 2 * pair < count; pair++) {
    threefry(low, high, draw, pair, words);
    // Box & Muller 1958, with uniforms that are never 0 or 1.
    const radius = Math.sqrt(-2 * Math.log((words[0] + 0.5) / 4294967296));
    const angle = 2 * Math.PI * ((words[1] + 0.5) / 4294967296);
    values[2 * pair] = radius * Math.cos(angle);
    if (2 * pair + 1 < count) values[2 * pair + 1] = radius * Math.sin(angle);
  }
  return values;
}
