// Pictures of a chain.

/** @param {HTMLCanvasElement} canvas @param {Uint8ClampedArray} pixels of an image file */
function paint(canvas, pixels) {
  const { channels, image_size: size } = page.model;
  canvas.width = canvas.height = size;
  const image = new ImageData(size, size);
  for (let i = 0; i < size * size; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = pixels[i * channels + (channels === 3 ? c : 0)];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d")?.putImageData(image, 0, 0);
}

/** The steps of a chain under a slider: x_t beside the predicted x0, and the noise level on its curve. */
class ChainView {
  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place;
    /** @type {ChainStep[]} */
    this.steps = [];
    this.title = "";
    place.innerHTML = `<div class="pictures">
      <figure><canvas role="img"></canvas><figcaption>x<sub>t</sub>, after the step</figcaption></figure>
      <figure><canvas role="img"></canvas><figcaption>the predicted x<sub>0</sub></figcaption></figure></div>
      <label><span></span><input type="range" min="0" max="0" value="0" aria-label="Sampling step"></label>
      <svg viewBox="0 0 360 96" role="img" aria-label="Noise level of every step"><text x="2" y="10">noise level σ</text>
      <text x="2" y="92">noise</text><text x="356" y="92" text-anchor="end">image</text><polyline></polyline><g></g></svg>`;
    this.canvases = place.querySelectorAll("canvas");
    this.slider = find("input", HTMLInputElement, place);
    this.caption = find("label span", HTMLElement, place);
    this.marks = find("svg g", SVGElement, place);
    const length = page.alpha_bar.length;
    const points = Array.from({ length: 101 }, (_, i) => this.point(Math.round((i / 100) * (length - 1))).join());
    find("polyline", SVGElement, place).setAttribute("points", points.join(" "));
    this.slider.oninput = () => this.show(Number(this.slider.value));
  }

  /** Where a timestep lies on the curve. @param {number} t */
  point(t) {
    const sigma = Math.sqrt(1 - page.alpha_bar[t]);
    return [(4 + 352 * (1 - t / Math.max(1, page.alpha_bar.length - 1))).toFixed(1), (78 - 62 * sigma).toFixed(1)];
  }

  /** @param {string} title @param {ChainStep[]} steps */
  begin(title, steps = []) {
    this.place.hidden = false;
    this.title = title;
    this.steps = steps;
    if (steps.length) this.show(steps.length - 1);
  }

  /** @param {ChainStep} step */
  add(step) {
    const following = Number(this.slider.value) >= this.steps.length - 1;
    this.steps.push(step);
    if (following || step.index === 0) this.show(this.steps.length - 1);
    else this.slider.max = String(this.steps.length - 1);
  }

  /** @param {number} index */
  show(index) {
    const step = this.steps[index];
    if (!step) return;
    this.slider.max = String(this.steps.length - 1);
    this.slider.value = String(index);
    paint(this.canvases[0], step.x);
    paint(this.canvases[1], step.x0);
    this.canvases[0].setAttribute("aria-label", `${this.title}, noisy image after step ${index + 1}`);
    this.canvases[1].setAttribute("aria-label", `${this.title}, predicted image at step ${index + 1}`);
    const sigma = Math.sqrt(1 - page.alpha_bar[step.t]);
    this.caption.textContent = `${this.title}: step ${index + 1} of ${step.steps}, from t = ${step.t}, noise level ${sigma.toFixed(2)}`;
    const shown = this.steps.length <= 60 ? this.steps : [];
    const circles = shown.map(({ t }) => this.circle(t, 2.5, ""));
    this.marks.innerHTML = circles.join("") + this.circle(step.t, 5, "now");
  }

  /** @param {number} t @param {number} radius @param {string} kind */
  circle(t, radius, kind) {
    const [x, y] = this.point(t);
    return `<circle class="${kind}" cx="${x}" cy="${y}" r="${radius}"></circle>`;
  }
}
