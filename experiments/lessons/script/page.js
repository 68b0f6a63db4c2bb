// What all lessons share: elements, images on a canvas, tables of numbers, charts, and questions.

const DATA = JSON.parse(document.getElementById("data").textContent);
const LESSONS = [];

// Bytes, or numbers of 32 bits, from base64.
function decode({ shape, bytes, floats }) {
  const raw = Uint8Array.from(atob(bytes ?? floats), (letter) => letter.charCodeAt(0));
  return tensor(shape, bytes ? raw : new Float32Array(raw.buffer));
}

// start(parts, controls) returns the function `show`, which runs at first and after each change of a control, and each
// click on a button with data-action.
// parts: the section's elements with data-part, by name. controls: its named form controls.
function lesson(id, start) {
  LESSONS.push(() => {
    const section = document.getElementById(id);
    const parts = {};
    for (const element of section.querySelectorAll("[data-part]")) parts[element.dataset.part] = element;
    const show = start(parts, section.querySelector("form").elements);
    const update = (event) => {
      show(event);
      for (const range of section.querySelectorAll("input[type=range]")) {
        const shown = range.dataset.text ?? text(Number(range.value));
        range.setAttribute("aria-valuetext", shown);
        range.parentElement.querySelector("output").textContent = shown;  // screen readers read aria-valuetext instead
      }
    };
    section.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
    section.addEventListener("input", (event) => event.target.closest(".question") || update(event));
    section.addEventListener("click", (event) => event.target.dataset.action && update(event));
    section.addEventListener("lesson", update);
    update();
  });
}

// Ask the lesson that contains this element to show itself again.
const changed = (element) => element.dispatchEvent(new CustomEvent("lesson", { bubbles: true }));

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made && typeof value !== "string") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// A number as text: at most `digits` decimal places, with a minus sign.
function text(value, digits = 2) {
  if (!Number.isFinite(value)) return "not finite";
  const rounded = Number(value.toFixed(digits));
  return (rounded === 0 ? 0 : rounded).toLocaleString("en", { maximumFractionDigits: digits }).replace("-", "−");
}

const percent = (fraction) => `${text(100 * fraction, 1)}%`;
const inBrackets = (value, digits) => text(value, digits).replace(/^−.*/, "($&)");

// "a × b + c × d + ..". The sign ×, since screen readers do not speak the dot.
const sumOfProducts = (a, b) => Array.from(a, (value, n) => `${inBrackets(value)} × ${inBrackets(b[n])}`).join(" + ");

// Blue for negative values, light for zero, vermillion for positive ones.
const BLUE = [0, 114, 178], LIGHT = [238, 238, 238], VERMILLION = [213, 94, 0];

function signedColor(value, most) {
  const strength = Math.min(Math.abs(value) / (most || 1), 1), target = value < 0 ? BLUE : VERMILLION;
  return LIGHT.map((light, n) => light + strength * (target[n] - light));
}

const absoluteLargest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

// Draw a tensor: three channels as colors from 0 to 1, one channel in gray, or in signed colors.
function paint(canvas, x, { channel = 0, signed = false, most = null } = {}) {
  const [height, width, channels] = x.shape, colors = channels === 3 && !signed;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d"), image = context.createImageData(width || 1, height || 1);
  const value = (n, c) => x.data[n * channels + c];
  let scale = most ?? (signed ? 0 : 1);
  if (most === null && signed) for (let n = 0; n < width * height; n++) scale = Math.max(scale, Math.abs(value(n, channel)));
  for (let n = 0; n < width * height; n++) {
    const color = signed ? signedColor(value(n, channel), scale) : null;
    for (let c = 0; c < 3; c++) {
      image.data[4 * n + c] = color ? color[c] : 255 * (colors ? value(n, c) : value(n, channel) / (scale || 1));
    }
    image.data[4 * n + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

// The text of a map for screen readers.
const describe = (map, words) => map.querySelector("canvas").setAttribute("aria-label", words);

// Place the frame of a map (an element with a canvas and a span) around some of its cells.
function frame(map, row, column, height, width) {
  const canvas = map.querySelector("canvas"), box = map.querySelector(".frame");
  Object.assign(box.style, {
    top: `${(100 * row) / canvas.height}%`,
    left: `${(100 * column) / canvas.width}%`,
    height: `${(100 * height) / canvas.height}%`,
    width: `${(100 * width) / canvas.width}%`,
  });
}

// Pointing at a cell of a map sets the sliders for row and column.
function pointAt(map, rowControl, columnControl) {
  const move = (event) => {
    const canvas = map.querySelector("canvas"), box = canvas.getBoundingClientRect();
    rowControl.value = Math.floor(((event.clientY - box.top) / box.height) * canvas.height);
    columnControl.value = Math.floor(((event.clientX - box.left) / box.width) * canvas.width);
    changed(map);
  };
  map.addEventListener("pointermove", move);
  map.addEventListener("pointerdown", move);
}

// Limit a slider to 0 .. most, and return its value.
function limited(range, most) {
  range.max = Math.max(most, 0);
  return Number(range.value);
}

// Show one channel of x as a table of inputs that change it, or of numbers if `name` is empty.
function numbers(holder, x, channel, name, { digits = 2, signed = true } = {}) {
  const [height, width, channels] = x.shape;
  const most = absoluteLargest(x.data);
  const key = `${name} ${height} ${width} ${channel}`;
  if (holder.dataset.key !== key) {
    holder.dataset.key = key;
    holder.replaceChildren(element("tbody", {}, ...Array.from({ length: height }, (_, i) => element("tr", {},
      ...Array.from({ length: width }, (_, j) => element("td", {}, ...(name ? [element("input", {
        type: "number", step: "any", "aria-label": `${name}, row ${i}, column ${j}`,
      })] : [])))))));
  }
  holder.querySelectorAll("td").forEach((cell, n) => {
    const at = n * channels + channel;
    const color = signedColor(x.data[at], 2 * most).map(Math.round);  // pale, so that the numbers can be read
    cell.style.background = signed ? `rgb(${color})` : "";
    const input = cell.firstElementChild;
    if (!input) {
      cell.textContent = text(x.data[at], digits);
      return;
    }
    if (document.activeElement !== input) input.value = Number(x.data[at].toFixed(digits));
    input.oninput = () => { x.data[at] = Number(input.value) || 0; };
  });
}

// A chart of curves [{values, name}], or of bars [{values, name, bars: true}]. ticks: the texts below, by position.
function chart(holder, curves, { low = 0, high = null, label = "", ticks = {} } = {}) {
  const width = 320, height = 150, left = 34, bottom = 18, top = 8;
  const all = curves.flatMap((curve) => Array.from(curve.values)).filter(Number.isFinite);
  const most = high ?? Math.max(...all, low + 1e-9), count = Math.max(...curves.map((curve) => curve.values.length), 2);
  const y = (value) => top + (height - top - bottom) * (1 - (Math.min(Math.max(value, low), most) - low) / (most - low));
  const bar = (width - left) / count, base = Math.max(low, 0);
  const x = (n) => (curves.some((curve) => curve.bars) ? left + bar * (n + 0.5) : left + ((width - left - 4) * n) / (count - 1));
  const drawn = curves.map((curve, c) => (curve.bars
    ? svg("g", { class: `bars c${c}` }, ...Array.from(curve.values, (value, n) => [value, n])
      .filter(([value]) => Number.isFinite(value)).map(([value, n]) => svg("rect", {
        x: x(n) - 0.4 * bar, width: 0.8 * bar, y: Math.min(y(value), y(base)), height: Math.abs(y(value) - y(base)),
      })))
    : svg("polyline", { class: `line c${c}`, points: Array.from(curve.values, (value, n) => `${x(n)},${y(value)}`).join(" ") })));
  const levels = low < 0 && most > 0 ? [low, 0, most] : [low, most];
  const tick = (value) => svg("text", { x: left - 4, y: y(value) + 4, class: "end" }, text(value, most - low < 1 ? 2 : 1));
  const below = Object.entries(ticks).map(([n, name]) => svg("text", { x: x(Number(n)), y: height - 3, class: "middle" }, name));
  const axis = svg("path", { class: "rule", d: `M${left} ${top}V${height - bottom}M${left} ${y(base)}H${width}` });
  holder.replaceChildren(
    svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, axis, ...levels.map(tick), ...below, ...drawn),
    ...(curves.length > 1 ? [element("p", { class: "keys" }, ...curves.map((curve, c) =>
      element("span", { class: `key c${c}` }, curve.name)))] : []),
  );
}

// A question with one right answer: the explanation appears after the first choice.
function questions() {
  for (const question of document.querySelectorAll(".question")) {
    question.addEventListener("input", (event) => {
      const right = event.target.value === question.dataset.answer;
      const answer = question.querySelector(".answer");
      answer.querySelector("span").hidden = false;
      answer.querySelector("b").textContent = right ? "Right. " : "Not quite. ";
    });
  }
}

// Numbers that look random and are the same on each visit: a linear congruential generator.
function randomNumbers(seed) {
  let state = seed;
  return () => (state = (1664525 * state + 1013904223) % 2 ** 32) / 2 ** 32;
}

// A standard normal number from two uniform ones (Box and Muller, 1958).
const normal = (random) => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
