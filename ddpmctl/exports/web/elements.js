// What is in the page.

/** @template {Element} T @param {string} selector @param {new () => T} kind @param {ParentNode} [within] @returns {T} */
function find(selector, kind, within = document) {
  const found = within.querySelector(selector);
  if (!(found instanceof kind)) throw new Error(`the page has no ${selector}`);
  return found;
}

/** @param {string} selector */
const text = (selector) => find(selector, HTMLScriptElement).textContent ?? "";

const page = /** @type {PageModel} */ (JSON.parse(text("#model")));
const form = {
  label: find("#label", HTMLSelectElement),
  seed: find("#seed", HTMLInputElement),
  sampler: find("#sampler", HTMLSelectElement),
  steps: find("#steps", HTMLInputElement),
  guidance: find("#guidance", HTMLInputElement),
  second: find("#second", HTMLSelectElement),
  share: find("#share", HTMLInputElement),
  strength: find("#strength", HTMLInputElement),
  colour: find("#colour", HTMLInputElement),
};
const statusLine = find("#status", HTMLElement);
const editStatus = find("#edit-status", HTMLElement);

/** @param {string} message */
function fail(message) {
  const shown = find("#problem", HTMLElement);
  shown.textContent = message;
  shown.hidden = false;
  statusLine.textContent = "";
}
