// The operations of a convolutional network, each written as its equation.
//
// A tensor is {shape, data}: data is a Float32Array, in the order of the shape, with channels last. An image has the
// shape [height, width, channels], a kernel [kernel height, kernel width, input channels, filters].
"use strict";

function tensor(shape, data) {
  const size = shape.reduce((product, n) => product * n, 1);
  return { shape, data: data ? Float32Array.from(data) : new Float32Array(size) };
}

// Padding before and after a dimension of n positions: a number, "VALID" (none), or "SAME" (output size n / stride).
function paddingPair(padding, n, size, stride, dilation) {
  if (padding === "VALID") return [0, 0];
  if (padding !== "SAME") return [padding, padding];
  const total = Math.max((Math.ceil(n / stride) - 1) * stride + dilation * (size - 1) + 1 - n, 0);
  return [Math.floor(total / 2), Math.ceil(total / 2)];
}

function outputSize(n, size, stride, [before, after], dilation) {
  return Math.max(Math.floor((n + before + after - dilation * (size - 1) - 1) / stride) + 1, 0);
}

// y[i, j, f] = bias[f] + sum over u, v, c of x[i * stride + u * dilation - top, j * stride + v * dilation - left, c]
//                                            * kernel[u, v, c, f]
// Positions outside of x are zero. With groups, each filter sees only the channels of its group.
function conv(x, kernel, bias, { stride = 1, padding = 0, dilation = 1, groups = 1 } = {}) {
  const [height, width, channels] = x.shape;
  const [kernelHeight, kernelWidth, inputs, filters] = kernel.shape;
  const rows = paddingPair(padding, height, kernelHeight, stride, dilation);
  const columns = paddingPair(padding, width, kernelWidth, stride, dilation);
  const y = tensor([
    outputSize(height, kernelHeight, stride, rows, dilation),
    outputSize(width, kernelWidth, stride, columns, dilation),
    filters,
  ]);
  let at = 0;
  for (let i = 0; i < y.shape[0]; i++) {
    for (let j = 0; j < y.shape[1]; j++) {
      for (let f = 0; f < filters; f++) {
        const first = Math.floor(f / (filters / groups)) * inputs;  // first input channel of this filter's group
        let sum = bias ? bias.data[f] : 0;
        for (let u = 0; u < kernelHeight; u++) {
          const row = i * stride + u * dilation - rows[0];
          if (row < 0 || row >= height) continue;
          for (let v = 0; v < kernelWidth; v++) {
            const column = j * stride + v * dilation - columns[0];
            if (column < 0 || column >= width) continue;
            for (let c = 0; c < inputs; c++) {
              sum += x.data[(row * width + column) * channels + first + c]
                * kernel.data[((u * kernelWidth + v) * inputs + c) * filters + f];
            }
          }
        }
        y.data[at++] = sum;
      }
    }
  }
  return y;
}

// y[i, j, c] = reduce(x[i * size + u, j * size + v, c] for u, v below size)
function pool(x, size, reduce) {
  const [height, width, channels] = x.shape;
  const y = tensor([Math.floor(height / size), Math.floor(width / size), channels]);
  let at = 0;
  for (let i = 0; i < y.shape[0]; i++) {
    for (let j = 0; j < y.shape[1]; j++) {
      for (let c = 0; c < channels; c++) y.data[at++] = reduce(patch(x, i * size, j * size, size, c));
    }
  }
  return y;
}

const largest = (values) => Math.max(...values);
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const maxPool = (x, size) => pool(x, size, largest);
const avgPool = (x, size) => pool(x, size, mean);

// The size x size values of one channel, from (row, column) on; positions outside are zero.
function patch(x, row, column, size, channel) {
  const [height, width, channels] = x.shape;
  return Array.from({ length: size * size }, (_, n) => {
    const i = row + Math.floor(n / size), j = column + (n % size);
    return i < 0 || j < 0 || i >= height || j >= width ? 0 : x.data[(i * width + j) * channels + channel];
  });
}

function relu(x) {
  return tensor(x.shape, x.data.map((value) => Math.max(value, 0)));
}

// y[f] = bias[f] + sum over c of x[c] * kernel[c, f]
function dense(x, kernel, bias) {
  const [inputs, features] = kernel.shape;
  const y = tensor([features]);
  for (let f = 0; f < features; f++) {
    let sum = bias.data[f];
    for (let c = 0; c < inputs; c++) sum += x.data[c] * kernel.data[c * features + f];
    y.data[f] = sum;
  }
  return y;
}

// p[c] = exp(z[c]) / sum of exp(z). Subtracting the largest value changes nothing and prevents overflow.
function softmax(z) {
  const most = largest(z);
  const powers = Array.from(z, (value) => Math.exp(value - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

// The gradient of dense with respect to its input: dx[c] = sum over f of dy[f] * kernel[c, f].
function denseInputGradient(dy, kernel) {
  const [inputs, features] = kernel.shape;
  return tensor([inputs], Array.from({ length: inputs }, (_, c) => {
    let sum = 0;
    for (let f = 0; f < features; f++) sum += dy.data[f] * kernel.data[c * features + f];
    return sum;
  }));
}

// The gradient of relu passes where its output is positive.
function reluGradient(dy, y) {
  return tensor(dy.shape, dy.data.map((value, n) => (y.data[n] > 0 ? value : 0)));
}

// The gradient of maxPool goes to the first largest value of each window.
function maxPoolGradient(dy, x, size) {
  const [, width, channels] = x.shape;
  const dx = tensor(x.shape);
  for (let i = 0; i < dy.shape[0]; i++) {
    for (let j = 0; j < dy.shape[1]; j++) {
      for (let c = 0; c < channels; c++) {
        const values = patch(x, i * size, j * size, size, c);
        const n = values.indexOf(largest(values));
        const row = i * size + Math.floor(n / size), column = j * size + (n % size);
        dx.data[(row * width + column) * channels + c] = dy.data[(i * dy.shape[1] + j) * channels + c];
      }
    }
  }
  return dx;
}

// The gradient of a 1-channel conv without padding with respect to its kernel: the input, convolved with dy.
function kernelGradient(x, dy) {
  return conv(x, { shape: [...dy.shape, 1], data: dy.data });
}
