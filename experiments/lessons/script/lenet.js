// Lesson 9: LeNet-5, trained with jaxcnn, on a drawing.

const WEIGHTS = Object.fromEntries(Object.entries(DATA.lenet).map(([path, values]) => [path, decode(values)]));
const layerOf = (kind, name, options) => (x) => kind(x, WEIGHTS[`${name}/kernel`], WEIGHTS[`${name}/bias`], options);

// The layers of jaxcnn.models.lenet5, in order.
const LENET = {
  conv1: layerOf(conv, "conv1", { padding: 2 }),
  relu1: relu,
  pool1: (x) => maxPool(x, 2),
  conv2: layerOf(conv, "conv2"),
  relu2: relu,
  pool2: (x) => maxPool(x, 2),
  dense1: layerOf(dense, "dense1"),  // reads the 5 x 5 x 16 values in the order in which flatten returns them
  relu3: relu,
  dense2: layerOf(dense, "dense2"),
  relu4: relu,
  head: layerOf(dense, "head"),
};

const NAMES = ["image", ...Object.keys(LENET)];
const before = (name) => NAMES[NAMES.indexOf(name) - 1];

// The outputs of all layers, by name, for an image (28, 28, 1) with values from 0 to 1.
function lenet(image) {
  const outputs = { image };
  let x = image;
  for (const [name, layer] of Object.entries(LENET)) outputs[name] = x = layer(x);
  return outputs;
}

// Grad-CAM at relu2 (Selvaraju et al., 2017): maps weighted by the mean gradient of the logit, positive part.
function gradCam(outputs, label) {
  let gradient = tensor([10]);
  gradient.data[label] = 1;
  gradient = reluGradient(denseInputGradient(gradient, WEIGHTS["head/kernel"]), outputs.relu4);
  gradient = reluGradient(denseInputGradient(gradient, WEIGHTS["dense2/kernel"]), outputs.relu3);
  gradient = denseInputGradient(gradient, WEIGHTS["dense1/kernel"]);
  gradient = maxPoolGradient(tensor(outputs.pool2.shape, gradient.data), outputs.relu2, 2);
  const [height, width, channels] = outputs.relu2.shape;
  const weights = Array.from({ length: channels }, (_, c) => mean(gradient.data.filter((_, n) => n % channels === c)));
  return tensor([height, width, 1], Array.from({ length: height * width }, (_, n) =>
    Math.max(weights.reduce((sum, weight, c) => sum + weight * outputs.relu2.data[n * channels + c], 0), 0)));
}

// What MNIST does: scale the drawing to fit into 20 x 20 and move its center of mass to the center of 28 x 28.
function centered(drawing) {
  const [height, width] = drawing.shape;
  let [top, bottom, left, right] = [height, -1, width, -1];
  drawing.data.forEach((value, n) => {
    if (value === 0) return;
    const row = Math.floor(n / width), column = n % width;
    [top, bottom, left, right] = [Math.min(top, row), Math.max(bottom, row), Math.min(left, column), Math.max(right, column)];
  });
  const y = tensor([28, 28, 1]);
  if (bottom < 0) return y;
  let mass = 0, rowSum = 0, columnSum = 0;
  drawing.data.forEach((value, n) => {
    mass += value;
    rowSum += value * (Math.floor(n / width) + 0.5);
    columnSum += value * ((n % width) + 0.5);
  });
  const scale = Math.max(bottom - top + 1, right - left + 1) / 20, samples = Math.max(2, Math.ceil(scale));
  for (let i = 0; i < 28; i++) {
    for (let j = 0; j < 28; j++) {
      let sum = 0;
      for (let n = 0; n < samples * samples; n++) {
        const row = Math.floor(rowSum / mass + (i - 14 + (Math.floor(n / samples) + 0.5) / samples) * scale);
        const column = Math.floor(columnSum / mass + (j - 14 + ((n % samples) + 0.5) / samples) * scale);
        if (row >= 0 && row < height && column >= 0 && column < width) sum += drawing.data[row * width + column];
      }
      y.data[i * 28 + j] = sum / (samples * samples);
    }
  }
  return y;
}

// A square to draw on with a mouse, a finger or the keyboard. status: an element that says where its pen is.
function drawingBoard(board, drawing, cursor, status) {
  const side = drawing.shape[0];

  function dot(row, column) {
    const radius = side / 18;
    for (let i = Math.ceil(row - radius); i <= row + radius; i++) {
      for (let j = Math.ceil(column - radius); j <= column + radius; j++) {
        const inside = (i - row) ** 2 + (j - column) ** 2 <= radius ** 2;
        if (inside && i >= 0 && j >= 0 && i < side && j < side) drawing.data[i * side + j] = 1;
      }
    }
  }

  function line(from, to) {
    const steps = Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1])) + 1;
    for (let n = 0; n <= steps; n++) dot(...[0, 1].map((d) => from[d] + ((to[d] - from[d]) * n) / steps));
  }

  let last = null;
  const position = (event) => {
    const box = board.getBoundingClientRect();
    return [((event.clientY - box.top) / box.height) * side, ((event.clientX - box.left) / box.width) * side];
  };
  board.addEventListener("pointerdown", (event) => {
    board.setPointerCapture(event.pointerId);
    last = position(event);
    line(last, last);
    changed(board);
  });
  board.addEventListener("pointermove", (event) => {
    if (last === null) return;
    for (const each of event.getCoalescedEvents?.() ?? [event]) {
      line(last, position(each));
      last = position(each);
    }
    changed(board);
  });
  for (const name of ["pointerup", "pointercancel"]) board.addEventListener(name, () => { last = null; });
  board.addEventListener("keydown", (event) => {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key === " ") cursor.down = !cursor.down;
    else if (!(event.key in moves)) return;
    event.preventDefault();
    const from = [...cursor.at], step = side / 28;
    if (event.key in moves) cursor.at = from.map((value, d) => Math.min(Math.max(value + step * moves[event.key][d], 0), side - 1));
    if (cursor.down) line(from, cursor.at);
    const [row, column] = cursor.at.map((value) => Math.floor(value / step));
    status.textContent = `pen ${cursor.down ? "down" : "up"}, row ${row}, column ${column}`;
    changed(board);
  });
}

lesson("lenet", (parts, controls) => {
  const side = 112, drawing = tensor([side, side, 1]), start = { at: [side / 2, side / 2], down: false }, cursor = { ...start };
  const digit = (n) => decode(DATA.digits[n].image).data.map((value) => value / 255);
  let image = tensor([28, 28, 1], digit(Number(controls.digit.value)));  // a browser may restore it
  drawingBoard(parts.board, drawing, cursor, parts.pen);
  pointAt(parts.map, controls.row, controls.column);

  // The parts of the network: for each layer with maps, a small canvas for each channel, which selects it. They are too many to
  // step through with Tab; the controls for layer and channel do the same.
  const strips = ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2"];
  const canvases = {};
  for (const name of strips) {
    const channels = WEIGHTS[`conv${name.at(-1)}/bias`].data.length;
    canvases[name] = Array.from({ length: channels }, () => element("canvas"));
    parts.network.append(element("li", {}, element("h3", {}, name), element("div", { class: "strip" },
      ...canvases[name].map((canvas, c) => {
        const button = element("button", { type: "button", "aria-label": `${name}, channel ${c}`, "data-action": "select", tabIndex: -1 }, canvas);
        Object.assign(button.dataset, { layer: name, channel: c });
        canvas.style.pointerEvents = "none";
        return button;
      }))));
  }

  // The calculation of one value of the selected layer: its last step, and lines about the ones before; the part of its input
  // as [row, column, size]; and the weights for the first input channel.
  function calculation(name, outputs, channel, row, column) {
    const x = outputs[before(name)], y = outputs[name], bias = WEIGHTS[`${name}/bias`]?.data[channel];
    const plusBias = (sums) => `${sums.map((sum) => inBrackets(sum, 3)).join(" + ")} + ${inBrackets(bias, 3)} (bias)`;
    if (name.startsWith("dense") || name === "head") {
      const kernel = WEIGHTS[`${name}/kernel`], features = kernel.shape[1];
      const products = Array.from(x.data, (value, c) => ({ value, weight: kernel.data[c * features + channel], c }))
        .sort((a, b) => Math.abs(b.value * b.weight) - Math.abs(a.value * a.weight));
      const terms = products.slice(0, 6).map(({ value, weight, c }) => `x[${c}] × w = ${text(value)} × ${inBrackets(weight)}`);
      return { lines: [`A sum of ${x.data.length} products. The largest: ${terms.join(";  ")}`],
        step: plusBias([y.data[channel] - bias]), value: y.data[channel] };
    }
    const value = y.data[(row * y.shape[1] + column) * y.shape[2] + channel];
    if (name.startsWith("relu")) {
      const input = x.shape.length === 1 ? x.data[channel] : x.data[(row * x.shape[1] + column) * x.shape[2] + channel];
      return { step: `max(0, ${text(input, 3)})`, value: x.shape.length === 1 ? y.data[channel] : value, field: [row, column, 1] };
    }
    if (name.startsWith("pool")) {
      const values = patch(x, 2 * row, 2 * column, 2, channel);
      return { step: `max(${values.map((v) => text(v, 3)).join(", ")})`, value, field: [2 * row, 2 * column, 2] };
    }
    const kernel = WEIGHTS[`${name}/kernel`], [size, , inputs, filters] = kernel.shape, pad = name === "conv1" ? 2 : 0;
    const weights = (c) => Array.from({ length: size * size }, (_, n) => kernel.data[(n * inputs + c) * filters + channel]);
    const sums = [], lines = Array.from({ length: inputs }, (_, c) => {
      const values = patch(x, row - pad, column - pad, size, c), ofChannel = weights(c);
      sums.push(values.reduce((total, v, n) => total + v * ofChannel[n], 0));
      return element("details", {}, element("summary", {}, `channel ${c}: ${size * size} products, their sum is ${text(sums[c], 3)}`),
        sumOfProducts(values, ofChannel));
    });
    return { lines, step: plusBias(sums), value, field: [row - pad, column - pad, size], kernel: tensor([size, size, 1], weights(0)) };
  }

  let outputs = null;

  // Compute and show all that depends on the image.
  function classify() {
    if (absoluteLargest(drawing.data) > 0) {
      image = centered(drawing);
      controls.digit.value = "";
    } else if (controls.digit.value === "") image = tensor([28, 28, 1]);
    outputs = lenet(image);
    const p = softmax(outputs.head.data), best = p.indexOf(largest(p));
    paint(parts.board.querySelector("canvas"), drawing);
    frame(parts.board, cursor.at[0] - 3, cursor.at[1] - 3, 6, 6);
    parts.board.dataset.pen = cursor.down ? "down" : "up";
    chart(parts.probabilities, [{ values: p, bars: true, name: "p" }], { high: 1, ticks: Object.keys(p),
      label: `Probabilities: ${p.map((value, n) => `${n}: ${percent(value)}`).join(", ")}` });
    parts.answer.textContent = absoluteLargest(image.data) === 0 ? "Draw a digit." : `LeNet-5 recognizes the digit ${best}, with a probability of ${percent(p[best])}.`;
    parts.answer.dataset.digit = best;
    for (const name of strips) {
      const most = absoluteLargest(outputs[name].data);
      canvases[name].forEach((canvas, channel) => paint(canvas, outputs[name], { channel, signed: true, most }));
    }

    // Grad-CAM, resized to the image, over the gray digit.
    const map = gradCam(outputs, best), most = absoluteLargest(map.data) || 1;
    const overlay = tensor([28, 28, 3]);
    for (let n = 0; n < 784; n++) {
      const i = Math.min(9, Math.floor(Math.floor(n / 28) / 2.8)), j = Math.min(9, Math.floor((n % 28) / 2.8));
      const heat = map.data[i * 10 + j] / most;
      VERMILLION.forEach((color, c) => { overlay.data[3 * n + c] = 0.6 * image.data[n] + 0.6 * heat * (color / 255); });
    }
    paint(parts.cam.querySelector("canvas"), overlay);
    paint(parts.input.querySelector("canvas"), image);
  }

  return (event) => {
    const { action, layer, channel: chosen } = event?.target.dataset ?? {};
    if (action === "clear") {
      drawing.data.fill(0);
      Object.assign(cursor, start);
      parts.pen.textContent = "";
    }
    if (action === "select") {
      controls.layer.value = layer;
      controls.channel.value = chosen;
    }
    if (event?.target.name === "digit" && event.target.value !== "") {
      drawing.data.fill(0);
      image = tensor([28, 28, 1], digit(Number(event.target.value)));
    }
    if (!outputs || action === "clear" || event?.target.name === "digit" || event?.target === parts.board) classify();

    const name = controls.layer.value, y = outputs[name], spatial = y.shape.length === 3;
    const channel = limited(controls.channel, y.shape.at(-1) - 1);
    const row = limited(controls.row, spatial ? y.shape[0] - 1 : 0), column = limited(controls.column, spatial ? y.shape[1] - 1 : 0);
    for (const strip of strips) {
      canvases[strip].forEach((canvas, c) =>
        canvas.parentElement.setAttribute("aria-pressed", strip === name && c === channel));
    }
    parts.map.parentElement.hidden = parts.from.parentElement.hidden = controls.row.disabled = controls.column.disabled = !spatial;
    const { lines = [], step, value, field, kernel } = calculation(name, outputs, channel, row, column);
    if (spatial) {
      const input = outputs[before(name)], source = input.shape[2] === y.shape[2] ? channel : 0;
      paint(parts.map.querySelector("canvas"), y, { channel, signed: true });
      frame(parts.map, row, column, 1, 1);
      paint(parts.from.querySelector("canvas"), input, { channel: source, signed: true });
      frame(parts.from, field[0], field[1], field[2], field[2]);
      parts.source.textContent = source;
    }
    parts.weights.parentElement.hidden = kernel === undefined;
    if (kernel) paint(parts.weights.querySelector("canvas"), kernel, { signed: true });
    const opened = Array.from(parts.lines.children, (line) => line.querySelector("details[open]") !== null);
    parts.lines.replaceChildren(...lines.map((line) => element("li", {}, line)));
    parts.lines.querySelectorAll("details").forEach((details, n) => { details.open = opened[n] ?? false; });
    parts.value.textContent = `${name}[${spatial ? `${row}, ${column}, ` : ""}${channel}] = ${step} = ${text(value, 3)}`;
  };
});
