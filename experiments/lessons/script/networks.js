// Lesson 10: famous networks. Then all lessons start.

lesson("networks", (parts, controls) => {
  const networks = DATA.networks;
  controls.network.max = networks.length - 1;

  // A block as a drawing: branches beside each other, each a list of layers, between its input and where they join.
  function drawBlock({ branches, join }) {
    const width = 132, rowHeight = 34, rows = Math.max(...branches.map((branch) => branch.length), 1);
    const height = rowHeight * rows + 70, center = (n) => width * (n + 0.5);
    const total = width * branches.length, bottom = height - 26;
    const parts = branches.map((branch, n) => svg("g", {},
      svg("path", { class: "wire", d: `M${total / 2} 14L${center(n)} 30V${bottom - 14}L${total / 2} ${bottom}` }),
      ...branch.map((layer, row) => {
        const y = 32 + rowHeight * (row + (rows - branch.length) / 2);
        return svg("g", {},
          svg("rect", { class: "box", x: center(n) - width / 2 + 5, y, width: width - 10, height: 26, rx: 4 }),
          svg("text", { class: "middle", x: center(n), y: y + 17 }, layer));
      })));
    const end = svg("text", { class: "middle join", x: total / 2, y: bottom + 18 }, join);
    return svg("svg", { viewBox: `0 0 ${total} ${height}`, width: total, role: "img",
      "aria-label": `Block: ${branches.map((branch) => branch.join(", ") || "identity").join("; beside it ")}${join && `; joined by ${join}`}` },
      ...parts, end);
  }

  const logarithm = (values) => values.map((value) => Math.log10(value));
  return () => {
    const at = Number(controls.network.value), network = networks[at];
    controls.network.dataset.text = `${network.year}: ${network.name}`;
    const field = network.field === null ? "the whole image" : `${network.field} × ${network.field} pixels`;
    parts.name.textContent = `${network.name}, ${network.year}`;
    parts.news.textContent = network.news;
    parts.block.replaceChildren(drawBlock(network.block));
    parts.facts.replaceChildren(...[
      ["input", network.input.join(" × ")],
      ["parameters", text(network.params, 0)],
      ["multiply-adds", text(network.multiplyAdds, 0)],
      ["receptive field of the last feature map", field],
      ["code", `jaxcnn.models.${network.model}()`],
      ["source", network.source],
    ].map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
    const mark = (values) => [
      { values: values.map((value, n) => (n === at ? NaN : value)), bars: true, name: "others" },
      { values: values.map((value, n) => (n === at ? value : NaN)), bars: true, name: network.name },
    ];
    const numbersOf = (key) => networks.map((one) => `${one.name} (${one.year}): ${text(one[key], 0)}`).join("; ");
    const ticks = networks.map(({ year }) => `’${String(year).slice(2)}`);
    chart(parts.params, mark(logarithm(networks.map(({ params }) => params))), { low: 4, high: 9, ticks, label: `Parameters: ${numbersOf("params")}` });
    chart(parts.work, mark(logarithm(networks.map(({ multiplyAdds }) => multiplyAdds))), { low: 5, high: 12, ticks, label: `Multiply-adds: ${numbersOf("multiplyAdds")}` });
  };
});

questions();
for (const start of LESSONS) start();
