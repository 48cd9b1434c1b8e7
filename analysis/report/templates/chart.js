// Small helpers for figures in SVG: elements, scales, ticks, axes and markers. One unit is one CSS pixel.
const Chart = (() => {
  const DASHES = ["", "10 3", "8 3 2 3", "6 2 2 2 2 2"], CLEAN_DASHES = ["6 4", "2 3", "12 4 2 4"], CHARACTER = 6.7, LINE = 14;
  const MARKERS = [
    "M-4,0a4,4 0 1 0 8,0a4,4 0 1 0 -8,0Z", "M-3.6,-3.6H3.6V3.6H-3.6Z", "M0,-5L5,0L0,5L-5,0Z", "M-4,-4L4,4M-4,4L4,-4",
    "M0,-5V5M-5,0H5", "M0,-5.5L1.6,-1.7L5.4,-1.7L2.3,.8L3.4,4.6L0,2.3L-3.4,4.6L-2.3,.8L-5.4,-1.7L-1.6,-1.7Z",
    "M0,-5L4.8,-1.5L2.9,4.1H-2.9L-4.8,-1.5Z",
  ];
  // `line` distinguishes the clean runs of several studies.
  const dash = ({style, line = 0}) => style === undefined ? CLEAN_DASHES[line % CLEAN_DASHES.length] : DASHES[style % DASHES.length];
  const marker = style => MARKERS[(style ?? 0) % MARKERS.length];

  function add(parent, tag, attributes = {}, text) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  }

  const scale = (low, high, from, to) => value => from + (value - low) / (high - low || 1) * (to - from);

  function ticks(low, high, most) {
    const rough = (high - low) / Math.max(most, 1), power = 10 ** Math.floor(Math.log10(rough || 1));
    const step = [1, 2, 5, 10].find(factor => factor * power >= rough * 0.999) * power, result = [];
    for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + 1e-9 * step; tick += step) result.push(tick);
    return {values: result, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9))};
  }

  function count(value) { // 1536000 -> "1.54M"
    for (const [unit, letter] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]])
      if (value >= 0.9995 * unit) return `${Number((value / unit).toPrecision(3))}${letter}`;
    return String(value);
  }

  // Break a label into lines of at most `width` pixels, at spaces.
  function wrapped(label, width) {
    const lines = [""];
    for (const word of label.split(" ")) {
      const longer = lines.at(-1) ? `${lines.at(-1)} ${word}` : word;
      if (lines.at(-1) && longer.length * CHARACTER > width) lines.push(word); else lines[lines.length - 1] = longer;
    }
    return lines;
  }

  // Select the labels that fit next to each other. `labels`: pairs of a position and a text, from left to right. The last one is kept.
  function apart(labels) {
    const kept = [];
    for (const label of labels.toReversed()) {
      const room = kept.length ? kept.at(-1)[0] - label[0] : Infinity;
      if (room >= (label[1].length + (kept.at(-1)?.[1].length ?? 0)) / 2 * CHARACTER + 6) kept.push(label);
    }
    return kept.toReversed();
  }

  // Start a figure: returns its parts and the rectangle for data. `yLabels`: texts that must fit to the left of the rectangle.
  function begin(svg, height, yLabels, top, bottom) {
    const width = Math.max(240, svg.parentElement.clientWidth), widest = Math.max(...yLabels.map(label => label.length));
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    return {left: widest * CHARACTER + 12, right: width - 14, top, bottom: height - bottom, width, height};
  }

  function yAxis(svg, box, low, high, digits, values) {
    const y = scale(low, high, box.bottom, box.top), group = add(svg, "g", {class: "axis"});
    for (const value of values) {
      add(group, "line", {x1: box.left, x2: box.right, y1: y(value), y2: y(value), class: "grid"});
      add(group, "text", {x: box.left - 6, y: y(value) + 4, "text-anchor": "end"}, yText(value, digits));
    }
    return y;
  }

  const yText = (value, digits) => value.toFixed(digits).replace("-", "−");

  // `labels`: [position, text] pairs, each on as many lines as needed to fit into `room` pixels.
  function xLabels(svg, labels, y, room = Infinity) {
    const group = add(svg, "g", {class: "axis"});
    for (const [x, text] of labels)
      wrapped(text, room).forEach((line, number) =>
        add(group, "text", {x, y: y + LINE * number, "text-anchor": "middle"}, line));
  }

  return {add, apart, begin, count, dash, marker, scale, ticks, wrapped, xLabels, yAxis, yText, CHARACTER, LINE};
})();
