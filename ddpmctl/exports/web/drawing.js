// The drawing area, and the drawing as the network sees it.

const drawing = find("#drawing", HTMLCanvasElement);
const pen = /** @type {CanvasRenderingContext2D} */ (drawing.getContext("2d", { willReadFrequently: true }));
let isEmpty = true;

function clearDrawing() {
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, drawing.width, drawing.height);
  isEmpty = true;
}

/** @param {PointerEvent} event @returns {[number, number]} */
function place(event) {
  const box = drawing.getBoundingClientRect();
  const scale = drawing.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
}

drawing.onpointerdown = (event) => {
  drawing.setPointerCapture(event.pointerId);
  pen.strokeStyle = page.model.channels === 3 ? form.colour.value : "#fff";
  pen.lineWidth = 20;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...place(event));
  pen.lineTo(...place(event));
  pen.stroke();
  isEmpty = false;
};
drawing.onpointermove = (event) => {
  if (!event.buttons) return;
  pen.lineTo(...place(event));
  pen.stroke();
};

/** The drawing as the network sees images, [channel][row][column]; centred where those of its data set are. */
function drawn() {
  const { channels, sample_size: side } = page.model;
  const small = document.createElement("canvas");
  small.width = small.height = side;
  const context = /** @type {CanvasRenderingContext2D} */ (small.getContext("2d", { willReadFrequently: true }));
  context.fillRect(0, 0, side, side);
  context.imageSmoothingQuality = "high";
  const { x, y, width } = page.centred ? centredBox() : { x: 0, y: 0, width: drawing.width };
  const scale = side / width;
  context.drawImage(drawing, -x * scale, -y * scale, drawing.width * scale, drawing.height * scale);
  const { data } = context.getImageData(0, 0, side, side);
  const [low, high] = page.pixel_range;
  const values = new Float32Array(channels * side * side);
  for (let c = 0; c < channels; c++)
    for (let i = 0; i < side * side; i++) values[c * side * side + i] = low + ((high - low) * data[4 * i + c]) / 255;
  return values;
}

/** The square in which the drawing fills 20 of 28 pixels, with its centre of mass in the middle, as in MNIST. */
function centredBox() {
  const { data, width, height } = pen.getImageData(0, 0, drawing.width, drawing.height);
  let mass = 0, sumX = 0, sumY = 0;
  let [left, right, top, bottom] = [width, 0, height, 0];
  for (let i = 0; i < width * height; i++) {
    const ink = data[4 * i];
    if (!ink) continue;
    const x = i % width, y = Math.floor(i / width);
    mass += ink;
    sumX += ink * x;
    sumY += ink * y;
    [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
  }
  const side = (Math.max(right - left, bottom - top) + 1) * (28 / 20);
  return { x: sumX / mass - side / 2, y: sumY / mass - side / 2, width: side };
}
