// What the page does. All computing happens in the worker.

/** Longest time in seconds of the image that is drawn on opening with the recommended sampler. */
const PATIENCE = 30;

/** Longest time in seconds of an image that is drawn anew while a setting changes. */
const AT_ONCE = 4;

/** Noise levels at which a drawing is classified. */
const DRAWS = 8;

/** Most classes of a sheet. */
const MOST_CLASSES = 100;

const MAX_SEED = 2n ** 63n - 2n;

/** Seconds that one evaluation of the network takes. */
let seconds = 0;
let engine = "";

/** @type {Calculator | null} */
let calculator = null;

/** @param {SampleRequest} request @param {(step: ChainStep) => void} onStep */
async function sample(request, onStep) {
  if (!calculator) throw new Error("the page cannot compute");
  return calculator.ask({ kind: "sample", request }, onStep);
}

// Settings

/** @param {string} value @returns {bigint | null} */
function parsedSeed(value) {
  const seed = /^\d{1,19}$/.test(value.trim()) ? BigInt(value.trim()) : null;
  return seed !== null && seed <= MAX_SEED ? seed : null;
}

/** The request of the settings, or null where one of them is wrong, which is said. @returns {SampleRequest | null} */
function chosen() {
  const seed = parsedSeed(form.seed.value);
  const steps = Number(form.steps.value);
  const most = page.alpha_bar.length;
  if (seed === null) statusLine.textContent = `The seed must be a whole number from 0 to ${MAX_SEED}.`;
  else if (!(Number.isInteger(steps) && steps >= 1 && steps <= most))
    statusLine.textContent = `The number of steps must be a whole number from 1 to ${most}.`;
  if (seed === null || !(Number.isInteger(steps) && steps >= 1 && steps <= most)) return null;
  const first = Number(form.label.value);
  const share = form.second.value === "" ? 0 : Number(form.share.value);
  /** @type {Mixture} */
  const mixture = share ? [[first, 1 - share], [Number(form.second.value), share]] : [[first, 1]];
  const guidance = page.guidable ? Number(form.guidance.value) : 1;
  const interval = page.sampling.guidance_interval;
  return { seed, mixture, sampler: form.sampler.value, steps, guidance, interval, strength: 1 };
}

/** Evaluations of the network that an image takes. @param {SampleRequest} request */
function evaluations({ steps, guidance, interval, mixture }) {
  const inside = guidance === 1 ? 0 : Math.min(1, interval[1]) - Math.max(0, interval[0]);
  return steps * (mixture.filter(([, weight]) => weight > 0).length + inside);
}

/** @param {SampleRequest} request */
const expected = (request) => seconds * evaluations(request);

/** @param {SampleRequest} request */
function named({ mixture }) {
  return mixture.map(([label, weight]) => (weight === 1 ? "" : `${Math.round(100 * weight)} % `) + page.classes[label]).join(" and ");
}

// Images

const chain = new ChainView(find("#chain", HTMLElement));
const edited = new ChainView(find("#edited", HTMLElement));
edited.place.hidden = true;

/** @param {ChainStep} step */
function pace(step) {
  const each = (1000 * step.seconds) / (step.index + 1);
  return `${each.toFixed(0)} ms per step, ${step.evaluations} evaluations of the network`;
}

/**
 * Sample and show the chain.
 *
 * @param {SampleRequest} request @param {ChainView} view @param {HTMLElement} line
 * @returns {Promise<ChainStep[] | null>} its steps, or null if another request stopped it
 */
async function run(request, view, line) {
  const title = named(request);
  /** @type {ChainStep[]} */
  const steps = [];
  // A screen reader waits for the end.
  line.ariaBusy = "true";
  const finished = await sample(request, (step) => {
    if (step.index === 0) view.begin(title);
    steps.push(step);
    view.add(step);
    line.textContent = `${title}: step ${step.index + 1} of ${step.steps}, ${pace(step)}`;
  });
  line.ariaBusy = "false";
  const last = steps[steps.length - 1];
  // The first evaluations, by which it was estimated, are slower than those that follow.
  if (last) seconds = last.seconds / last.evaluations;
  if (finished && last) line.textContent = `${title}: ${last.steps} steps in ${last.seconds.toFixed(2)} s, ${pace(last)}.`;
  return finished ? steps : null;
}

/** @param {string} [before] a sentence to keep before the figures */
async function generate(before = "") {
  const request = chosen();
  if (!request) return;
  statusLine.textContent = `About ${expected(request).toFixed(1)} s …`;
  if ((await run(request, chain, statusLine)) && before) statusLine.textContent = `${before} ${statusLine.textContent}`;
}

/** One image of every class from the same noise. */
async function generateSheet() {
  const request = chosen();
  if (!request) return;
  const place = find("#thumbnails", HTMLElement);
  place.replaceChildren();
  const classes = page.classes.slice(0, MOST_CLASSES);
  for (const [label, name] of classes.entries()) {
    const steps = await run({ ...request, mixture: [[label, 1]] }, chain, statusLine);
    if (!steps) return;
    const button = document.createElement("button");
    const canvas = document.createElement("canvas");
    paint(canvas, steps[steps.length - 1].x);
    button.append(canvas, name);
    button.onclick = () => {
      form.label.value = String(label);
      chain.begin(name, steps);
    };
    place.append(button);
  }
  const rest = page.classes.length > classes.length ? ` (the first ${classes.length})` : "";
  statusLine.textContent = `Every class${rest} from the noise of seed ${request.seed}. Choose one to look at its steps.`;
}

// The drawing

/** @param {HTMLElement} line where to say that there is none */
function isDrawn(line) {
  if (isEmpty) line.textContent = "Draw something first, or copy the generated image.";
  return !isEmpty;
}

async function edit() {
  const request = chosen();
  if (!request || !isDrawn(editStatus)) return;
  const strength = Number(form.strength.value);
  await run({ ...request, start: drawn(), strength }, edited, editStatus);
}

async function classify() {
  const answer = find("#answer", HTMLElement);
  if (!calculator || !isDrawn(answer) || !isDrawn(editStatus)) return;
  answer.scrollIntoView({ block: "nearest" });
  const request = { image: drawn(), draws: DRAWS };
  const finished = await calculator.ask({ kind: "classify", request }, (/** @type {ClassErrors} */ { draw, errors }) => {
    if (errors.every((error) => error > 0)) showErrors(errors);
    answer.textContent = `Noise level ${draw + 1} of ${DRAWS} …`;
  });
  if (finished) answer.textContent = `The model thinks: ${find("#bars .best th", HTMLElement).textContent}.`;
}

/** @param {number[]} errors */
function showErrors(errors) {
  const [least, most] = [Math.min(...errors), Math.max(...errors)];
  const rows = errors.map((error, label) => {
    const row = document.createElement("tr");
    row.className = error === least ? "best" : "";
    row.innerHTML = `<th scope="row"></th><td><span class="bar"></span></td><td>${error.toFixed(4)}</td>`;
    find("th", HTMLElement, row).textContent = page.classes[label];
    find(".bar", HTMLElement, row).style.width = `${(100 * (error - least)) / Math.max(1e-9, most - least)}%`;
    return row;
  });
  find("#bars tbody", HTMLElement).replaceChildren(...rows);
}

// Start

function fillSettings() {
  for (const [label, name] of page.classes.entries()) {
    form.label.add(new Option(name, String(label)));
    form.second.add(new Option(name, String(label)));
  }
  form.second.add(new Option("none", ""), 0);
  form.second.value = "";
  form.label.value = String(Math.min(8, page.classes.length - 1));
  for (const name of Object.keys(page.samplers)) form.sampler.add(new Option(name));
  form.sampler.value = page.sampling.sampler;
  form.steps.max = String(page.chain_length);
  form.steps.value = String(page.sampling.steps);
  form.guidance.value = String(page.sampling.guidance);
  find("#guidance-field", HTMLElement).hidden = !page.guidable;
  find("#colour-field", HTMLElement).hidden = page.model.channels === 1;
  for (const slider of [form.guidance, form.share, form.strength]) {
    const shown = find(`output[for=${slider.id}]`, HTMLOutputElement);
    const update = () => (shown.value = slider.value);
    slider.addEventListener("input", update);
    update();
  }
}

/** @param {() => Promise<void>} action */
const reported = (action) => () => action().catch((error) => fail(String(error.message ?? error)));

function listen() {
  let timer = 0;
  // A quick model draws again while a setting changes.
  const again = () => {
    form.share.disabled = form.second.value === "";
    clearTimeout(timer);
    const request = chosen();
    if (request && expected(request) < AT_ONCE) timer = window.setTimeout(reported(() => generate()), 120);
  };
  find("#settings", HTMLFormElement).addEventListener("input", again);
  form.sampler.onchange = () => (form.steps.value = String(page.samplers[form.sampler.value]));
  find("#settings", HTMLFormElement).onsubmit = (event) => {
    event.preventDefault();
    clearTimeout(timer);
    reported(() => generate())();
  };
  find("#other-seed", HTMLElement).onclick = () => {
    form.seed.value = String(Math.floor(Math.random() * 2 ** 32));
    again();
  };
  find("#sheet", HTMLElement).onclick = reported(generateSheet);
  find("#clear", HTMLElement).onclick = clearDrawing;
  find("#copy", HTMLElement).onclick = () => {
    pen.imageSmoothingEnabled = true;
    pen.drawImage(chain.canvases[0], 0, 0, drawing.width, drawing.height);
    isEmpty = false;
  };
  find("#edit", HTMLFormElement).onsubmit = (event) => {
    event.preventDefault();
    reported(edit)();
  };
  find("#classify", HTMLElement).onclick = reported(classify);
}

async function start() {
  fillSettings();
  clearDrawing();
  listen();
  if (typeof Worker !== "function") {
    fail("This browser has no Web Workers, in which the page computes. Any browser of the last ten years has them.");
    return;
  }
  calculator = new Calculator();
  // With #plain in its address, the page computes without WebAssembly.
  const message = { kind: "load", page, code: text("#kernel"), compiled: location.hash !== "#plain" };
  // In parts, between which the page can react.
  for (const part of document.querySelectorAll(".weights")) {
    await calculator.ask({ kind: "weights", part: part.textContent }, () => {});
    part.remove();
  }
  await calculator.ask(message, (/** @type {Loaded} */ loaded) => ({ seconds, engine } = loaded));
  find("#engine", HTMLElement).textContent = `Computed by ${engine}, ${(1000 * seconds).toFixed(0)} ms per evaluation of the network.`;
  document.querySelectorAll("fieldset").forEach((fields) => (fields.disabled = false));
  await generateFirst();
}

/** An image without being asked: with fewer steps where the recommended ones would take too long. */
async function generateFirst() {
  const request = chosen();
  let why = "";
  if (request && expected(request) > PATIENCE) {
    form.sampler.value = "ddim";
    form.steps.value = String(Math.min(50, page.alpha_bar.length));
    const recommended = `${request.sampler} with ${request.steps} steps`;
    why = `The recommended ${recommended} would take ${Math.round(expected(request))} s: this is ddim with ${form.steps.value}.`;
  }
  await generate(why);
}

reported(start)();
