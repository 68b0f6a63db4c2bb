// Lessons 5 to 8: from values to a loss, gradient descent, batch norm, and overfitting.

lesson("softmax", (parts, controls) => () => {
  const names = ["cat", "dog", "ship"];
  const inputs = names.map((_, n) => Number(controls[`z${n}`].value));
  const z = controls.relu.checked ? inputs.map((value) => Math.max(value, 0)) : inputs;
  const p = softmax(z), label = Number(controls.label.value);
  const named = (values, write) => names.map((name, n) => `${name} ${write(values[n])}`);
  const logits = named(z, (value) => text(value, 1)), probabilities = named(p, percent);
  chart(parts.logits, [{ values: z, bars: true, name: "z" }], { low: -4, high: 4, ticks: logits, label: `Values: ${logits.join(", ")}` });
  chart(parts.probabilities, [{ values: p, bars: true, name: "p" }], { high: 1, ticks: probabilities, label: `Probabilities: ${probabilities.join(", ")}` });
  const powers = z.map((value) => `e^${inBrackets(value, 1)}`).join(" + ");
  parts.formula.textContent = `p(${names[label]}) = e^${inBrackets(z[label], 1)} / (${powers}) = ${text(p[label], 3)};  `
    + `loss = −log ${text(p[label], 3)} = ${text(-Math.log(p[label]), 3)}`;
  const gradient = p.map((probability, n) => probability - (n === label));
  parts.gradient.textContent = "The gradient says how fast the loss grows with each value: p − 1 for the right class, p for the others, here "
    + `${named(gradient, text).join(", ")}.`;
});

lesson("descent", (parts, controls) => {
  const random = randomNumbers(1), target = presetKernel("vertical", 1);
  const image = tensor([14, 14, 1], Array.from({ length: 196 }, (_, n) => {
    const row = Math.floor(n / 14), column = n % 14;
    return (row > 2 && row < 8 && column > 1 && column < 7) || (row > 5 && row < 12 && column > 8 && column < 12) ? 1 : 0;
  }));
  const wanted = conv(image, target);
  const start = tensor([3, 3, 1, 1], Array.from({ length: 9 }, () => normal(random)));
  let kernel = start, losses = [];

  // The mean squared error, and its gradient with respect to the output.
  function compare(y) {
    const errors = y.data.map((value, n) => value - wanted.data[n]);
    return [mean(Array.from(errors, (error) => error * error)), tensor(y.shape, errors.map((error) => (2 * error) / y.data.length))];
  }

  return (event) => {
    const rate = 10 ** Number(controls.rate.value);
    controls.rate.dataset.text = text(rate, 3);
    const steps = { step: 1, many: 50 }[event?.target.dataset?.action] ?? 0;
    if (event?.target.dataset?.action === "restart" || losses.length === 0) {
      kernel = start;
      losses = [compare(conv(image, kernel))[0]];
    }
    for (let n = 0; n < steps && losses.at(-1) < 1e6; n++) {
      const gradient = kernelGradient(image, compare(conv(image, kernel))[1]);
      kernel = tensor(kernel.shape, kernel.data.map((weight, k) => weight - rate * gradient.data[k]));
      losses.push(compare(conv(image, kernel))[0]);
    }
    const y = conv(image, kernel), [loss, outputGradient] = compare(y);
    const gradient = kernelGradient(image, outputGradient);
    const most = absoluteLargest(wanted.data);
    paint(parts.image.querySelector("canvas"), image);
    paint(parts.wanted.querySelector("canvas"), wanted, { signed: true, most });
    paint(parts.output.querySelector("canvas"), y, { signed: true, most });
    numbers(parts.kernel, tensor([3, 3, 1], kernel.data), 0, "");
    chart(parts.losses, [{ values: losses, name: "loss" }], { high: Math.min(Math.max(...losses), 2 * losses[0]),
      ticks: { 0: 0, [losses.length - 1]: losses.length - 1 },
      label: `Loss after ${losses.length - 1} steps: ${text(loss, 4)}` });
    parts.formula.textContent = `Next step: w[0, 0] ← w − η × ∂loss/∂w = ${text(kernel.data[0], 3)} − ${text(rate, 3)} × ${inBrackets(gradient.data[0], 3)}`
      + ` = ${text(kernel.data[0] - rate * gradient.data[0], 3)}`;
    parts.loss.textContent = losses.at(-1) < 1e6 ? `Step ${losses.length - 1}: the loss is ${text(loss, 4)}.`
      : `Step ${losses.length - 1}: the loss diverges. Choose a smaller learning rate and restart.`;
  };
});

lesson("norm", (parts, controls) => {
  // Scaled so that their mean is 0 and their variance 1, as the sliders say.
  const random = randomNumbers(2), drawn = Array.from({ length: 400 }, () => normal(random)), middle = mean(drawn);
  const spread = Math.sqrt(mean(drawn.map((value) => (value - middle) ** 2)));
  const standard = drawn.map((value) => (value - middle) / spread);
  const edges = Array.from({ length: 32 }, (_, n) => -8 + 0.5 * n);
  const histogram = (values) => edges.map((edge) => values.filter((value) => value >= edge && value < edge + 0.5).length);
  const ticks = { "-0.5": "−8", 15.5: "0", 31.5: "8" };  // at the edges between bars
  return () => {
    const [center, width, gamma, beta] = ["center", "width", "gamma", "beta"].map((name) => Number(controls[name].value));
    const x = standard.map((value) => center + width * value);
    const m = mean(x), variance = mean(x.map((value) => (value - m) ** 2));
    const y = x.map((value) => (gamma * (value - m)) / Math.sqrt(variance + 1e-5) + beta);
    const passed = (values) => percent(mean(values.map((value) => (value > 0 ? 1 : 0))));
    const counts = [histogram(x), histogram(y)], high = largest(counts.flat());
    const label = (average, deviation) => `Histogram: mean ${text(average)}, standard deviation ${text(deviation)}`;
    chart(parts.before, [{ values: counts[0], bars: true, name: "x" }], { high, ticks, label: label(m, Math.sqrt(variance)) });
    chart(parts.after, [{ values: counts[1], bars: true, name: "y" }], { high, ticks, label: label(beta, Math.abs(gamma)) });
    parts.formula.textContent = `y = γ × (x − mean) / √(var + ε) + β = ${text(gamma)} × (x − ${inBrackets(m)}) / ${text(Math.sqrt(variance + 1e-5))} + ${inBrackets(beta)}`;
    parts.active.textContent = `A ReLU passes ${passed(x)} of the inputs and ${passed(y)} of the outputs.`;
  };
});

lesson("overfitting", (parts, controls) => {
  const { l1, l2, dropout, runs, edges } = DATA.overfitting;
  controls.l1.max = l1.length - 1;
  controls.l2.max = l2.length - 1;
  controls.dropout.max = dropout.length - 1;
  let seed = 1;
  return (event) => {
    const at = ["l1", "l2", "dropout"].map((name) => Number(controls[name].value));
    const rate = dropout[at[2]];
    controls.l1.dataset.text = l1[at[0]];
    controls.l2.dataset.text = l2[at[1]];
    controls.dropout.dataset.text = rate;
    const run = runs[(at[0] * l2.length + at[1]) * dropout.length + at[2]];
    const last = run.train.length - 1;
    chart(parts.curves, [{ values: run.train, name: "training loss" }, { values: run.test, name: "test loss" }],
      { high: 2.5, ticks: { 0: 1, [last]: last + 1 },
        label: `Training loss ${text(run.train[last])} and test loss ${text(run.test[last])} after ${last + 1} epochs` });
    chart(parts.weights, [{ values: run.histogram.map((count) => Math.log10(1 + count)), bars: true, name: "weights" }],
      { high: 4, ticks: { 0: text(edges[0]), [(run.histogram.length - 1) / 2]: 0, [run.histogram.length - 1]: edges[1] },
        label: `Histogram of the weights from ${edges[0]} to ${edges[1]}, logarithmic; ${percent(run.nearZero)} near zero` });
    parts.formula.textContent = `training loss + λ₁ × Σ|w| + λ₂ × Σw² = ${text(run.train[last], 3)} + ${l1[at[0]]} × ${text(run.absolute, 0)} + `
      + `${l2[at[1]]} × ${text(run.squares, 1)} = ${text(run.train[last] + l1[at[0]] * run.absolute + l2[at[1]] * run.squares, 3)}`;
    parts.result.textContent = `After ${last + 1} epochs the test loss is ${text(run.test[last])}, the training loss ${text(run.train[last])}: a gap of `
      + `${text(run.test[last] - run.train[last])}. ${percent(run.accuracy)} of the test digits are classified correctly; `
      + `${percent(run.nearZero)} of the weights are between −0.001 and 0.001.`;

    if (event?.target.dataset?.action === "masks") seed += Number(event.target.value);
    const random = randomNumbers(12345), masks = [];
    for (let n = 0; n < seed; n++) masks.push(Array.from({ length: 100 }, () => (random() < rate ? 0 : 1 / (1 - rate))));
    const average = masks[0].map((_, n) => mean(masks.map((mask) => mask[n])));
    paint(parts.mask.querySelector("canvas"), tensor([10, 10, 1], masks.at(-1)), { most: 1 / (1 - rate) });
    paint(parts.average.querySelector("canvas"), tensor([10, 10, 1], average), { most: 1 / (1 - rate) });
    const kept = masks.at(-1).filter((value) => value > 0).length;
    parts.dropped.textContent = `Mask ${seed} keeps ${kept} of 100 units and multiplies them by 1 / (1 − ${rate}) = ${text(1 / (1 - rate))}. `
      + `The mean over ${seed} ${seed === 1 ? "mask" : "masks"} is between ${text(Math.min(...average))} and ${text(Math.max(...average))}.`;
  };
});
