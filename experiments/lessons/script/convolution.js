// Lessons 1 to 4: convolution in one dimension, a kernel on an image, sizes, and pooling.

lesson("boxes", (parts, controls) => {
  const shapes = {
    box: () => 1,
    ramp: (n) => (n + 1) / 5,
    spike: (n) => (n === 1 ? 1 : 0),
  };
  const signal = Array.from({ length: 21 }, (_, n) => (n >= 8 && n < 13 ? 1 : 0));
  return () => {
    const kernel = Array.from({ length: 5 }, (_, n) => shapes[controls.kernel.value](n));
    const flip = controls.flip.checked, position = Number(controls.position.value);
    // The kernel covers the positions position - 4 .. position. Flipped, its first value meets the newest position.
    const at = (n) => (flip ? kernel[position - n] : kernel[n - position + 4]) ?? 0;
    const output = (now) => kernel.reduce((sum, value, k) => sum + value * (signal[flip ? now - k : now - 4 + k] ?? 0), 0);
    const grown = signal.map((_, n) => (n <= position ? output(n) : 0));
    const bars = (values, name) => ({ values, name, bars: true });
    const overlap = signal.map((value, n) => [value, at(n)]).slice(position - 4, position + 1);
    const list = (values) => values.map((value) => text(value)).join(", "), ticks = { 0: 0, 5: 5, 10: 10, 15: 15, 20: 20 };
    chart(parts.inputs, [bars(signal, "signal x"), bars(signal.map((_, n) => at(n)), "kernel k")], { high: 1, ticks,
      label: `Signal: 1 at 8 to 12, 0 elsewhere. Kernel at ${position - 4} to ${position}: ${list(overlap.map((pair) => pair[1]))}` });
    chart(parts.output, [bars(grown, "output y")], { high: 5, ticks,
      label: `Output at 4 to ${position}: ${list(grown.slice(4, position + 1))}` });
    parts.formula.textContent = `y[${position}] = Σ x[n] × ${flip ? `k[${position} − n]` : `k[n − ${position - 4}]`} = `
      + `${sumOfProducts(overlap.map((pair) => pair[0]), overlap.map((pair) => pair[1]))} = ${text(output(position))}`;
  };
});

const PRESETS = {
  vertical: [1, 0, -1, 1, 0, -1, 1, 0, -1],
  horizontal: [1, 1, 1, 0, 0, 0, -1, -1, -1],
  sobel: [1, 0, -1, 2, 0, -2, 1, 0, -1],
  blur: Array(9).fill(1 / 9),
  sharpen: [0, -1, 0, -1, 5, -1, 0, -1, 0],
  identity: [0, 0, 0, 0, 1, 0, 0, 0, 0],
};
const COLORS = ["red", "green", "blue"];

// A kernel (size, size, channels, 1): a preset on each channel (divided by their number), or a filter of LeNet-5.
function presetKernel(name, channels) {
  if (name === "color") {  // +1 at the center for red, -1 for blue
    return tensor([3, 3, 3, 1], Array.from({ length: 27 }, (_, n) => ({ 12: 1, 14: -1 })[n] ?? 0));
  }
  const learned = /^learned(\d)$/.exec(name);
  const filters = learned && decode(DATA.lenet["conv1/kernel"]);
  const plane = learned ? filters.data.filter((_, n) => n % filters.shape[3] === Number(learned[1])) : PRESETS[name];
  const size = Math.sqrt(plane.length);
  return tensor([size, size, channels, 1], Array.from(plane).flatMap((value) => Array(channels).fill(value / channels)));
}

// One channel of the kernel, as an image.
const kernelPlane = (kernel, channel) => tensor(kernel.shape.slice(0, 2).concat(1),
  kernel.data.filter((_, n) => n % kernel.shape[2] === channel));

lesson("kernel", (parts, controls) => {
  const images = {
    numbers: tensor([5, 5, 1], [1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1]),
    digit: tensor([28, 28, 1], decode(DATA.digits[7].image).data.map((value) => value / 255)),
    photo: tensor(DATA.photo.shape, decode(DATA.photo).data.map((value) => value / 255)),
  };
  let kernel = null, chosen = "";
  pointAt(parts.input, controls.row, controls.column);
  pointAt(parts.output, controls.row, controls.column);
  const repeat = (count, make) => Array.from({ length: count }, (_, n) => make(n));
  return () => {
    const image = images[controls.image.value], channels = image.shape[2];
    for (const option of controls.preset.options) option.disabled = option.value === "color" && channels === 1;
    if (channels === 1 && controls.preset.value === "color") controls.preset.value = "vertical";
    if (chosen !== controls.preset.value + channels) {
      chosen = controls.preset.value + channels;
      kernel = presetKernel(controls.preset.value, channels);
      parts.kernels.replaceChildren(...repeat(channels, () => element("table", { class: "numbers" })));
    }
    const size = kernel.shape[0], bias = tensor([1], [Number(controls.bias.value) || 0]);
    const y = conv(image, kernel, bias);
    const row = limited(controls.row, y.shape[0] - 1), column = limited(controls.column, y.shape[1] - 1);
    parts.editor.hidden = controls.image.value !== "numbers";
    if (!parts.editor.hidden) numbers(parts.editor, image, 0, "image");
    parts.kernels.childNodes.forEach((table, c) => {
      numbers(table, kernel, c, channels === 3 ? `kernel, ${COLORS[c]}` : "kernel");
    });
    paint(parts.input.querySelector("canvas"), image, { most: absoluteLargest(image.data) });
    paint(parts.output.querySelector("canvas"), y, { signed: true });
    const [least, most] = [Math.min(...y.data), largest(y.data)].map((value) => text(value));
    describe(parts.input, `Input image, ${image.shape[0]} × ${image.shape[1]}`);
    describe(parts.output, `Output, ${y.shape[0]} × ${y.shape[1]}, values from ${least} to ${most}`);
    frame(parts.input, row, column, size, size);
    frame(parts.output, row, column, 1, 1);
    const sums = repeat(channels, (c) => {
      const values = patch(image, row, column, size, c), weights = kernelPlane(kernel, c).data;
      return { values, weights, sum: values.reduce((sum, value, n) => sum + value * weights[n], 0) };
    });
    parts.sums.replaceChildren(...sums.map(({ values, weights, sum }, c) => element("li", {},
      `${channels === 3 ? `${COLORS[c]}: ` : ""}${sumOfProducts(values, weights)} = ${text(sum, 3)}`)));
    const value = y.data[row * y.shape[1] + column];
    const planes = channels === 3 ? sums.map(({ sum }) => inBrackets(sum, 3)).join(" + ") : text(sums[0].sum, 3);
    parts.formula.textContent = `y[${row}, ${column}] = ${planes} + ${inBrackets(bias.data[0], 3)} (bias) = ${text(value, 3)}`;
  };
});

lesson("sizes", (parts, controls) => {
  const number = (name) => Math.min(Math.max(Math.round(Number(controls[name].value)) || 1, 1), Number(controls[name].max) || Infinity);
  const whole = (value) => text(value, 0);
  return (event) => {
    if (event?.target.name === "example") {
      const settings = JSON.parse(event.target.value);
      for (const [name, value] of Object.entries(settings)) controls[name].value = value;
    }
    const [n, k, s, d] = ["n", "k", "s", "d"].map(number);
    const [channels, filters, groups] = ["channels", "filters", "groups"].map(number);
    const padding = Number.isNaN(Number(controls.p.value)) ? controls.p.value : Number(controls.p.value);
    const [before, after] = paddingPair(padding, n, k, s, d);
    const out = outputSize(n, k, s, [before, after], d);
    parts.formula.textContent = "output size = ⌊(n + p − d × (k − 1) − 1) / s⌋ + 1"
      + (out === 0 ? ": the kernel is larger than the padded image, so there is no output."
        : ` = ⌊(${n} + ${before + after} − ${d} × ${k - 1} − 1) / ${s}⌋ + 1 = ${out}, with p = ${before} + ${after}; `
          + `the output is ${out} × ${out} × ${filters}`);

    // How often a kernel of ones uses each position, in one dimension; the image is the product of two such counts.
    const uses = Array(n).fill(0);
    for (let i = 0; i < out; i++) {
      for (let u = 0; u < k; u++) {
        const at = i * s + u * d - before;
        if (at >= 0 && at < n) uses[at] += 1;
      }
    }
    const counts = tensor([n, n, 1], uses.flatMap((a) => uses.map((b) => a * b)));
    paint(parts.uses.querySelector("canvas"), counts, { most: absoluteLargest(counts.data) });
    parts.range.textContent = `${whole(Math.min(...uses) ** 2)} to ${whole(Math.max(...uses) ** 2)} for a pixel, ${whole(counts.data[0])} in the corner`;

    const valid = channels % groups === 0 && filters % groups === 0;
    const weights = (k * k * channels) / groups, read = (Math.min(k, n) ** 2 * channels) / groups, all = weights * filters, connected = n * n * channels * filters;
    parts.weights.textContent = !valid ? "The numbers of channels and filters must be multiples of the number of groups."
      : `One filter has ${k} × ${k} × ${channels}${groups > 1 ? ` / ${groups}` : ""} = ${whole(weights)} weights, `
        + `${filters} ${filters === 1 ? "filter has" : "filters have"} ${whole(all)}, with biases ${whole(all + filters)}. `
        + `Full connection of the ${n} × ${n} × ${channels} values with ${filters} `
        + `${filters === 1 ? "unit" : "units"} needs ${whole(connected)}: ${text(connected / all, 1)} times as many. `
        + (out === 0 ? "" : `Each output is connected to ${whole(read)} of ${whole(n * n * channels)} values (${percent(read / (n * n * channels))}).`);
  };
});

lesson("pooling", (parts, controls) => {
  const edges = presetKernel("vertical", 1), shownValues = 16;
  const pools = { max: maxPool, average: avgPool, none: (x) => x };
  const digits = DATA.digits.map(({ image }) => tensor([28, 28, 1], decode(image).data.map((value) => value / 255)));

  function shifted(x, down, right) {
    const y = tensor(x.shape);
    for (let i = 0; i < 28; i++) {
      for (let j = 0; j < 28; j++) {
        const row = i - down, column = j - right;
        if (row >= 0 && column >= 0 && row < 28 && column < 28) y.data[i * 28 + j] = x.data[row * 28 + column];
      }
    }
    return y;
  }

  // The length of the difference, relative to the length of the original.
  function change(x, y) {
    const length = (values) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
    return length(x.data.map((value, n) => value - y.data[n])) / length(x.data);
  }

  return () => {
    const digit = digits[Number(controls.digit.value)];
    const down = Number(controls.down.value), right = Number(controls.right.value);
    const size = controls.size.value === "global" ? 28 : Number(controls.size.value);
    const features = [digit, shifted(digit, down, right)].map((x) => relu(conv(x, edges, null, { padding: "SAME" })));
    const pooled = features.map((x) => pools[controls.kind.value](x, size));
    paint(parts.image.querySelector("canvas"), shifted(digit, down, right));
    paint(parts.features.querySelector("canvas"), features[1], { most: 3 });
    paint(parts.before.querySelector("canvas"), pooled[0], { most: absoluteLargest(pooled[0].data) });
    paint(parts.after.querySelector("canvas"), pooled[1], { most: absoluteLargest(pooled[0].data) });
    const at = pooled[1].data.indexOf(largest(pooled[1].data)), columns = pooled[1].shape[1];
    const row = Math.floor(at / columns), column = at % columns;
    const values = patch(features[1], row * size, column * size, size, 0);
    const name = controls.kind.value === "none" ? "" : controls.kind.value === "max" ? "max" : "mean";
    const shown = values.slice(0, shownValues).map((value) => text(value)).join(", ")
      + (values.length > shownValues ? `, … (${values.length} values)` : "");
    parts.formula.textContent = name === "" ? "Without pooling, the feature map is passed on unchanged."
      : `The largest output: y[${row}, ${column}] = ${name}(${shown}) = ${text(pooled[1].data[at])}`;
    parts.change.textContent = `The shift by ${text(down)} down and ${text(right)} right changes the feature map by `
      + `${percent(change(...features))}${name && `, and the pooled map by ${percent(change(...pooled))}. `
        + `The next layer receives ${pooled[0].data.length} instead of 784 values`}.`;
  };
});
