// The movable figures: one slider over the arms and one over training move all of them together.
(() => {
  const source = document.getElementById("explorer-data"), root = document.getElementById("explorer");
  if (!source || !root) return;
  const {add, apart, begin, count, dash, marker, scale, ticks, xLabels, yAxis, yText, CHARACTER, LINE} = Chart;
  const LINE_DASHES = ["", "6 3", "2 3"]; // of the lines that connect the arms of one study
  const data = JSON.parse(source.textContent), SHOWN_STEPS = 10, FEWEST_SEEDS = 2;
  const state = {panel: 0, arm: 0, frame: 0, metric: 0, seed: null, hot: null, hidden: new Set()};
  const node = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // Data
  const panel = () => data.panels[state.panel], arms = () => panel().arms, arm = () => arms()[state.arm];
  const isControl = entry => entry.color === undefined;
  const controlOf = entry => arms().find(candidate => isControl(candidate) && candidate.line === entry.line);
  const hasControl = () => arms().some(isControl);
  const controlName = () => { // in sentences
    const name = arms().find(isControl)?.name ?? "";
    return panel().axis !== "Repeats R" ? "training from scratch" : name.startsWith("R = ") ? name.split(",")[0] : "the clean run";
  };
  const armOf = run => arms().find(entry => entry.runs.some(index => data.runs[index] === run));
  const visible = () => arms().filter(candidate => !state.hidden.has(candidate.name));
  const runsOf = of => of.runs.map(index => data.runs[index]);
  const gridOf = run => data.grids[run.grid];
  const valueAt = (run, place, metric = state.metric) => {
    const value = run.values[metric][place];
    return value === null || value === undefined ? NaN : value / data.scale;
  };
  const last = (grid, tokens) => { // the last index whose tokens are at most `tokens`
    let place = -1;
    while (place + 1 < grid.length && grid[place + 1] <= tokens) place++;
    return place;
  };
  const longest = of => of.arms.flatMap(runsOf).map(gridOf).reduce((a, b) => b.length > a.length ? b : a);
  const grid = () => longest(panel()), tokens = () => grid()[state.frame];
  const seeds = () => [...new Set(arms().flatMap(runsOf).filter(run => run.frames).map(run => run.seed))].sort((a, b) => a - b);
  const runAt = of => of && (runsOf(of).find(run => run.seed === state.seed && run.frames) ?? runsOf(of).find(run => run.frames));
  const partner = run => { // the control with the same seed
    const clean = controlOf(armOf(run));
    return clean && runsOf(clean).find(candidate => candidate.seed === run.seed);
  };
  // The metric minus that of the control with the same seed, or the metric itself if the panel has no control.
  function difference(run, at) {
    const own = last(gridOf(run), at), unfinished = gridOf(run).at(-1) < at;
    if (own < 0 || unfinished) return NaN;
    if (!hasControl()) return valueAt(run, own);
    const other = partner(run), place = other ? last(gridOf(other), gridOf(run)[own]) : -1;
    return place < 0 || gridOf(other)[place] !== gridOf(run)[own] ? NaN : valueAt(run, own) - valueAt(other, place);
  }
  function estimate(values) { // mean with its 95% t interval
    const n = values.length, mean = values.reduce((a, b) => a + b, 0) / n;
    const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1);
    const half = n < FEWEST_SEEDS ? NaN : (data.t[n] ?? 1.96) * Math.sqrt(variance / n);
    return {mean, low: mean - half, high: mean + half, n};
  }
  // Two decimals, or three if the value or half its interval is below 0.01.
  const digits = (value, half = NaN) => Math.abs(value) < 0.01 || (half > 0 && half < 0.01) ? 3 : 2;
  const signed = (value, decimals = digits(value)) => { // zero is never negative
    const text = Math.abs(value).toFixed(decimals);
    return `${value < 0 && Number(text) ? "−" : "+"}${text}`;
  };
  const metric = () => data.metrics[state.metric];
  const withUnit = text => metric().unit === "nats/token" ? `${text} nats/token` : text;
  const isDrawn = (run, place) => gridOf(run)[place] >= data.drawnFrom * gridOf(run).at(-1);

  // Controls
  const choose = (label, change) => {
    const select = node("select", {onchange: () => { change(select); }});
    return {select, label: node("label", {}, node("span", {textContent: label}), select)};
  };
  const slide = (label, change) => {
    const range = node("input", {type: "range", min: 0, step: 1, oninput: () => change(Number(range.value))});
    const output = node("output"), name = node("span", {textContent: label});
    return {range, output, name, label: node("label", {className: "slider"}, node("span", {}, name, " ", output), range)};
  };
  const panels = choose("Model and fraction", select => { state.panel = Number(select.value); changePanel(); });
  const metrics = choose("Metric", select => { state.metric = Number(select.value); drawAll(); });
  const seedChoice = choose("Seed of heads and text", select => { state.seed = Number(select.value); move(); });
  const armSlider = slide("Repeats R", value => { state.arm = value; state.hidden.delete(arm().name) ? drawAll() : move(); });
  const timeSlider = slide("Training tokens", value => { state.frame = value; move(); });
  const play = node("button", {type: "button", textContent: "Play training", onclick: toggleTimer});
  const readout = node("p", {className: "readout"}), live = node("p", {className: "unseen"});
  live.setAttribute("aria-live", "polite");
  const legend = node("div", {className: "legend"});
  legend.setAttribute("role", "group");
  legend.setAttribute("aria-label", "Show or hide lines");
  const tip = node("div", {className: "tip", hidden: true});
  tip.setAttribute("aria-hidden", "true"); // the readout contains the same numbers
  const figure = name => {
    const caption = node("figcaption"), svg = add(null, "svg", {role: "img", tabindex: "0"});
    const box = node("figure", {className: `chart ${name}`}, caption, node("div", {className: "area"}, svg));
    svg.addEventListener("pointerleave", () => { tip.hidden = true; heat(null); });
    return {caption, svg, box};
  };
  const curves = figure("curves"), cost = figure("cost"), heads = figure("heads");
  const text = {caption: node("figcaption"), body: node("div", {className: "pair"})};
  text.box = node("figure", {className: "chart text"}, text.caption, text.body);
  root.querySelector(".place").append(
    node("div", {className: "choices"}, panels.label, metrics.label, seedChoice.label, play),
    node("div", {className: "sliders"}, armSlider.label, timeSlider.label),
    readout, live, legend, node("div", {className: "charts"}, curves.box, cost.box, heads.box, text.box), tip);
  root.hidden = false;
  for (const {svg} of [curves, cost, heads]) svg.addEventListener("keydown", event => {
    const slider = {ArrowLeft: timeSlider, ArrowRight: timeSlider, ArrowUp: armSlider, ArrowDown: armSlider}[event.key];
    if (!slider) return;
    event.preventDefault();
    event.key === "ArrowRight" || event.key === "ArrowUp" ? slider.range.stepUp() : slider.range.stepDown();
    slider.range.dispatchEvent(new Event("input"));
  });

  let timer = null;
  function toggleTimer() {
    clearInterval(timer);
    timer = timer ? null : setInterval(() => {
      state.frame = (state.frame + 1) % grid().length;
      move();
      if (state.frame === grid().length - 1) toggleTimer();
    }, 120);
    if (timer && state.frame === grid().length - 1) state.frame = 0;
    play.textContent = timer ? "Stop" : "Play training";
  }

  function fillPanels() {
    const groups = new Map();
    data.panels.forEach((entry, index) => {
      if (!groups.has(entry.group)) groups.set(entry.group, entry.group ? node("optgroup", {label: entry.group}) : panels.select);
      groups.get(entry.group).append(node("option", {value: index, textContent: entry.title}));
    });
    for (const [name, group] of groups) if (name) panels.select.append(group);
    panels.label.hidden = data.panels.length < 2;
    data.metrics.forEach((entry, index) => metrics.select.append(node("option", {value: index, textContent: entry.name})));
  }

  function changePanel() {
    const old = state.arm, name = panel().axis;
    armSlider.name.textContent = name;
    armSlider.range.setAttribute("aria-label", name);
    armSlider.range.max = arms().length - 1;
    timeSlider.range.max = grid().length - 1;
    state.arm = Math.min(old, arms().length - 1);
    state.frame = grid().length - 1;
    const listed = seeds();
    seedChoice.select.replaceChildren(...listed.map(seed => node("option", {value: seed, textContent: seed})));
    seedChoice.label.hidden = listed.length < 2;
    if (!listed.includes(state.seed)) state.seed = listed[0] ?? 0;
    seedChoice.select.value = state.seed;
    drawAll();
  }

  // Drawing. `drawAll` starts from nothing; `move` only updates what depends on the sliders.
  function drawAll() {
    const start = performance.now();
    drawLegend();
    drawCurves();
    buildText();
    update();
    root.dataset.drawn = (performance.now() - start).toFixed(1);
  }
  function move() {
    const start = performance.now();
    update();
    root.dataset.moved = (performance.now() - start).toFixed(1);
  }
  function update() {
    armSlider.range.value = state.arm;
    timeSlider.range.value = state.frame;
    const amount = count(tokens());
    armSlider.output.textContent = arm().name;
    timeSlider.output.textContent = amount;
    armSlider.range.setAttribute("aria-valuetext", arm().name);
    timeSlider.range.setAttribute("aria-valuetext", `${amount} tokens`);
    for (const element of root.querySelectorAll("[data-arm]")) element.classList.toggle("on", Number(element.dataset.arm) === state.arm);
    moveCursor();
    drawCost();
    drawHeads();
    colorText();
    describe();
  }

  const paint = (element, of) => {
    element.style.setProperty("--light", of.color ?? "var(--ink)");
    element.style.setProperty("--dark", of.dark ?? "var(--ink)");
    element.classList.add("paint");
    return element;
  };

  function drawLegend() {
    const described = arms().map((entry, index) => {
      const sample = add(null, "svg", {width: 34, height: 14, "aria-hidden": "true"});
      paint(sample, entry);
      add(sample, "line", {x1: 1, x2: 33, y1: 7, y2: 7, class: "line", "stroke-dasharray": dash(entry)});
      if (entry.style !== undefined) add(sample, "path", {d: marker(entry.style), transform: "translate(17 7)", class: "mark"});
      const button = node("button", {type: "button", onclick: () => {
        state.hidden.delete(entry.name) || state.hidden.add(entry.name);
        drawAll();
        legend.children[index].focus();
      }}, sample, node("span", {textContent: entry.name}));
      button.dataset.arm = index;
      button.title = "show or hide";
      button.setAttribute("aria-pressed", String(!state.hidden.has(entry.name)));
      button.addEventListener("pointerenter", () => heat(index));
      button.addEventListener("pointerleave", () => heat(null));
      return button;
    });
    legend.replaceChildren(...described);
  }

  function heat(index) { // highlight an arm in all figures while the pointer is on it
    if (index === state.hot) return;
    state.hot = index;
    for (const element of root.querySelectorAll("[data-arm]")) element.classList.toggle("hot", Number(element.dataset.arm) === index);
  }

  let plot = null; // the scales of the learning curves
  // Panels with the same title, for example in several variants or studies, share their axes.
  const alike = () => data.panels.filter(other => other.title === panel().title);

  function drawCurves() {
    const values = alike().flatMap(other => other.arms).flatMap(runsOf).flatMap(run =>
      gridOf(run).map((_, place) => isDrawn(run, place) ? valueAt(run, place) : NaN)).filter(Number.isFinite);
    const most = Math.max(...alike().map(other => longest(other).at(-1)));
    if (!values.length) values.push(0, 1);
    const extent = Math.max(...values) - Math.min(...values) || 0.1;
    const low = Math.min(...values) - 0.04 * extent, high = Math.max(...values) + 0.04 * extent;
    const marks = ticks(low, high, 5);
    const box = begin(curves.svg, 300, marks.values.map(value => yText(value, marks.digits)), 12, 42);
    const y = yAxis(curves.svg, box, low, high, marks.digits, marks.values), x = scale(0, most, box.left, box.right);
    const along = ticks(0, most, Math.floor((box.right - box.left) / 80)).values;
    xLabels(curves.svg, along.map(value => [Math.min(x(value), box.right - 12), count(value)]), box.bottom + 16);
    add(curves.svg, "text", {x: (box.left + box.right) / 2, y: box.height - 6, "text-anchor": "middle", class: "name"}, "training tokens");
    plot = {box, x, y};
    for (const entry of visible().toReversed()) {
      const group = paint(add(curves.svg, "g", {class: "lines", "data-arm": arms().indexOf(entry)}), entry), runs = runsOf(entry);
      const path = (points, name) => {
        const drawn = points.filter(point => Number.isFinite(point[1])).map(([px, py]) => `${px.toFixed(1)},${py.toFixed(1)}`);
        if (drawn.length) add(group, "path", {d: `M${drawn.join("L")}`, class: name, "stroke-dasharray": dash(entry)});
      };
      const places = run => gridOf(run).map((_, place) => place).filter(place => isDrawn(run, place));
      const point = (run, place, value) => [x(gridOf(run)[place]), y(value)];
      for (const run of runs) path(places(run).map(place => point(run, place, valueAt(run, place))), runs.length > 1 ? "thin" : "line");
      if (runs.length > 1 && runs.every(run => run.grid === runs[0].grid))
        path(places(runs[0]).map(place => point(runs[0], place, estimate(runs.map(run => valueAt(run, place))).mean)), "line");
    }
    add(curves.svg, "line", {class: "cursor", y1: box.top, y2: box.bottom});
    add(curves.svg, "circle", {class: "spot", r: 5});
    const title = `${metric().name} over training`;
    curves.caption.replaceChildren(node("strong", {textContent: title}), ` (${metric().unit || "no unit"})`);
    curves.svg.setAttribute("aria-label", `${title}, one line per arm. The arrow keys move the sliders.`);
  }

  const meanAt = of => {
    const values = runsOf(of).map(run => valueAt(run, last(gridOf(run), tokens()))).filter(Number.isFinite);
    return values.length ? estimate(values) : {mean: NaN, n: 0};
  };

  function moveCursor() {
    const at = plot.x(tokens()), cursor = curves.svg.querySelector(".cursor"), spot = curves.svg.querySelector(".spot");
    cursor.setAttribute("x1", at);
    cursor.setAttribute("x2", at);
    const {mean} = meanAt(arm()), shown = Number.isFinite(mean) && plot.y(mean) >= plot.box.top - 1 && !state.hidden.has(arm().name);
    spot.setAttribute("visibility", shown ? "visible" : "hidden");
    if (!shown) return;
    spot.setAttribute("cx", at);
    spot.setAttribute("cy", plot.y(mean));
  }

  const ranges = new Map(); // the training tokens and values of all differences, by panel title and metric
  // The vertical range of the cost figure. It covers the differences from the selected tokens to the end of training, because
  // differences early in training can be much larger.
  function costRange() {
    const key = `${panel().title}|${state.metric}`;
    if (!ranges.has(key)) {
      const kept = state.panel, values = [];
      for (const other of alike()) {
        state.panel = data.panels.indexOf(other);
        for (const run of other.arms.flatMap(runsOf))
          gridOf(run).forEach((at, place) => { if (isDrawn(run, place)) values.push([at, difference(run, at)]); });
      }
      state.panel = kept;
      ranges.set(key, values.filter(([, value]) => Number.isFinite(value)));
    }
    const measured = ranges.get(key), last = measured.reduce((most, [at]) => Math.max(most, at), 0);
    let [least, greatest] = hasControl() ? [0, 0] : [Infinity, -Infinity];
    for (const [at, value] of measured)
      if (at >= Math.min(tokens(), last)) [least, greatest] = [Math.min(least, value), Math.max(greatest, value)];
    return least <= greatest ? [least, greatest] : [0, 1];
  }

  let dots = [];
  function drawCost() {
    const svg = cost.svg, [least, greatest] = costRange(), extent = greatest - least || 0.1, clean = hasControl();
    const low = least - 0.06 * extent, high = greatest + 0.16 * extent, marks = ticks(low, high, 5);
    const pools = arms().map(entry => entry.pool), hasPools = new Set(pools.filter(Boolean)).size > 1, isNumeric = panel().axis === "Repeats R";
    const rows = isNumeric ? 1 : Math.max(...arms().map(entry => Chart.wrapped(entry.tick, room()).length));
    function room() { return (svg.parentElement.clientWidth - 70) / Math.max(arms().length, 1) - 8; }
    const box = begin(svg, 300, marks.values.map(value => yText(value, marks.digits)), hasPools ? 42 : 12, 28 + LINE * rows);
    const y = yAxis(svg, box, low, high, marks.digits, marks.values), xs = arms().map(entry => entry.x);
    const margin = isNumeric ? 18 : room() / 2 + 8;
    const x = scale(Math.min(...xs), Math.max(...xs), box.left + margin, box.right - margin);
    const labels = arms().filter(entry => entry.line === arms()[0].line || !isNumeric).map(entry => [x(entry.x), entry.tick]);
    isNumeric ? xLabels(svg, apart(labels), box.bottom + 16) : xLabels(svg, labels, box.bottom + 16, room());
    const middle = {x: (box.left + box.right) / 2, "text-anchor": "middle", class: "name"};
    add(svg, "text", {...middle, y: box.height - 6}, isNumeric ? "repeats R (log scale)" : "starting point");
    if (hasPools) {
      xLabels(svg, apart(arms().filter(entry => entry.pool && entry.line === arms()[0].line).map(entry => [x(entry.x), entry.pool])), box.top - 8);
      add(svg, "text", {...middle, y: 12}, "tokens in the pool");
    }
    if (clean) add(svg, "line", {x1: box.left, x2: box.right, y1: y(0), y2: y(0), class: "zero"});
    dots = [];
    const means = [];
    for (const entry of visible()) {
      const group = paint(add(svg, "g", {class: "lines", "data-arm": arms().indexOf(entry)}), entry);
      const measured = runsOf(entry).map(run => [run, difference(run, tokens())]).filter(pair => Number.isFinite(pair[1]));
      if (!measured.length) continue;
      const inside = value => Math.min(Math.max(y(value), box.top), box.bottom), of = estimate(measured.map(pair => pair[1]));
      measured.forEach(([run, value], number) => {
        const px = x(entry.x) + (measured.length > 1 ? (number - (measured.length - 1) / 2) * 3 : 0);
        dots.push({entry, run, value, x: px, y: inside(value)});
        if (measured.length > 1) add(group, "circle", {cx: px, cy: inside(value), r: 2.2, class: "seed"});
      });
      if (Number.isFinite(of.low) && !isControl(entry))
        add(group, "line", {x1: x(entry.x), x2: x(entry.x), y1: inside(of.low), y2: inside(of.high), class: "line"});
      add(group, "path", {d: marker(entry.style), transform: `translate(${x(entry.x)} ${inside(of.mean)})`, class: entry.style === undefined ? "mark hollow" : "mark"});
      const top = Math.min(inside(of.mean) - 4, ...measured.map(([, value]) => inside(value)), inside(of.high) || Infinity);
      means.push({entry, of, x: x(entry.x), y: inside(of.mean), top});
    }
    for (const line of isNumeric ? new Set(means.map(mean => mean.entry.line)) : []) {
      const joined = means.filter(mean => mean.entry.line === line).map(mean => `${mean.x},${mean.y}`).join("L");
      svg.insertBefore(add(null, "path", {d: `M${joined}`, class: "join", "stroke-dasharray": LINE_DASHES[line % 3]}), svg.querySelector(".lines"));
    }
    markWorst(svg, box, means.filter(mean => !isControl(mean.entry)));
    for (const group of svg.querySelectorAll("[data-arm]")) group.classList.toggle("on", Number(group.dataset.arm) === state.arm);
    const title = clean ? `${metric().name} minus that of ${controlName()}` : metric().name;
    cost.caption.replaceChildren(node("strong", {textContent: title}), ` at ${count(tokens())} tokens, paired by seed`);
    svg.setAttribute("aria-label", `${title} for every arm at ${count(tokens())} tokens. The arrow keys move the sliders.`);
  }

  function markWorst(svg, box, means) { // label the extreme that is bad for the metric
    const sign = {lower: 1, higher: -1}[metric().better];
    if (!sign || means.length < 2) return;
    const worst = means.reduce((a, b) => sign * b.of.mean > sign * a.of.mean ? b : a);
    const words = `${sign > 0 ? "highest" : "lowest"}: ${worst.entry.name}, ${hasControl() ? signed(worst.of.mean) : worst.of.mean.toFixed(digits(worst.of.mean))}`;
    const half = words.length * CHARACTER / 2, above = Math.max(worst.top - 10, box.top + 10);
    const middle = Math.min(Math.max(worst.x, box.left + half), box.right - half);
    add(svg, "rect", {class: "behind", x: middle - half, y: above - 11, width: 2 * half, height: 15}); // covers other arms' intervals
    add(svg, "text", {class: "worst", x: middle, y: above, "text-anchor": "middle"}, words);
  }

  // Head scores and text
  const frameOf = run => { // the index of the run's last recorded frame
    const grid = gridOf(run);
    let place = 0;
    while (place + 1 < run.frames.length && grid[run.frames[place + 1]] <= tokens()) place++;
    return {place, tokens: grid[run.frames[place]]};
  };
  const digit = (digits, index) => (digits.charCodeAt(2 * index) - 48) * 10 + digits.charCodeAt(2 * index + 1) - 48;
  const shade = share => { // a few stops of the "magma" color map
    const stops = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]], at = Math.min(share, 1) * 4;
    const low = Math.min(Math.floor(at), 3), part = at - low;
    return `rgb(${stops[low].map((channel, index) => Math.round(channel + part * (stops[low + 1][index] - channel))).join()})`;
  };
  const pairOf = () => {
    const clean = controlOf(arm()), own = runAt(arm()), base = clean && clean !== arm() ? runAt(clean) : null;
    return [[clean, base], [arm(), own]].filter(pair => pair[1]);
  };
  const tops = new Map(); // the highest head score of each panel
  function topScore() {
    if (!tops.has(state.panel)) {
      let top = 20;
      for (const run of arms().flatMap(runsOf)) for (let at = 0; run.heads && at < run.heads[2].length / 2; at++) top = Math.max(top, digit(run.heads[2], at));
      tops.set(state.panel, top);
    }
    return tops.get(state.panel);
  }

  function drawHeads() {
    const pair = pairOf().filter(([, run], _, all) => run.heads && run.heads[0] === all.at(-1)[1].heads?.[0] && run.heads[1] === all.at(-1)[1].heads[1]);
    heads.box.hidden = !pair.length;
    if (!pair.length) return;
    const svg = heads.svg, [layers, width] = pair[0][1].heads, top = topScore();
    const gap = 16, room = (svg.parentElement.clientWidth - 66 - gap * (pair.length - 1)) / pair.length - 8;
    const titles = pair.map(([entry]) => Chart.wrapped(entry.name, room)), extra = LINE * (Math.max(...titles.map(lines => lines.length)) - 1);
    const height = Math.max(60, Math.min(230, layers * 44)), box = begin(svg, height + 94 + extra, ["layer 0"], 24 + extra, 70);
    let outlined = 0;
    const limits = pair.map(([, run]) => run.threshold).filter(limit => limit !== undefined);
    drawScale(svg, box, top / 100, limits);
    const cell = (box.right - box.left - gap * (pair.length - 1)) / (pair.length * width), rowHeight = (box.bottom - box.top) / layers;
    pair.forEach(([entry, run], number) => {
      const start = box.left + number * (width * cell + gap), at = frameOf(run);
      titles[number].forEach((line, row) =>
        add(svg, "text", {x: start + width * cell / 2, y: 14 + LINE * row, "text-anchor": "middle", class: "name"}, line));
      for (let layer = 0; layer < layers; layer++) for (let head = 0; head < width; head++) {
        const score = digit(run.heads[2], (at.place * layers + layer) * width + head), px = start + head * cell, py = box.bottom - (layer + 1) * rowHeight;
        const rect = add(svg, "rect", {x: px, y: py, width: Math.max(cell - 1.5, 1), height: rowHeight - 1.5, rx: 2, fill: shade(score / top)});
        const present = run.induction?.[at.place].includes(layer * width + head);
        if (present) outlined++;
        rect.classList.toggle("present", Boolean(present));
        rect.dataset.tip = `${entry.name}, seed ${run.seed}\nlayer ${layer}, head ${head}: prefix matching ${(score / 100).toFixed(2)}`
          + (run.threshold === undefined ? "" : ` (${(score / 100 / run.threshold).toFixed(1)} times the threshold of ${run.threshold.toFixed(2)})`) + `\n${count(at.tokens)} tokens`;
        if (cell > 26 && rowHeight > 15)
          add(svg, "text", {x: px + cell / 2, y: py + rowHeight / 2 + 4, "text-anchor": "middle", class: "cell", fill: score / top > 0.6 ? "#000" : "#fff"}, (score / 100).toFixed(2).slice(1));
      }
    });
    for (let layer = 0; layer < layers; layer++)
      if (rowHeight > 12 || layer % 4 === 0) add(svg, "text", {x: box.left - 6, y: box.bottom - (layer + 0.5) * rowHeight + 4, "text-anchor": "end", class: "axis"}, `layer ${layer}`);
    add(svg, "text", {x: (box.left + box.right) / 2, y: box.bottom + 16, "text-anchor": "middle", class: "name"}, `heads 0 to ${width - 1} of each run`);
    const {tokens: measured} = frameOf(pair.at(-1)[1]);
    const verdict = !limits.length ? "" : outlined
      ? " Outlined heads count as induction heads: the score minus half its interval exceeds the run's threshold."
      : " No head here counts as an induction head.";
    heads.caption.replaceChildren(node("strong", {textContent: "Prefix matching of every head"}), ` at ${count(measured)} tokens, seed ${pair.at(-1)[1].seed}.${verdict}`);
    svg.setAttribute("aria-label", `Prefix matching of every head: ${pair.map(([entry]) => entry.name).join(" and ")}`);
  }

  // The color scale below the maps, with the threshold of every run for induction heads: twice the largest null or twice the
  // untrained model's score, whichever is larger.
  function drawScale(svg, box, top, limits) {
    const steps = 40, y = box.bottom + 30, at = scale(0, top, box.left, box.right);
    for (let step = 0; step < steps; step++)
      add(svg, "rect", {x: at(top * step / steps), y, width: (box.right - box.left) / steps + 0.5, height: 9, fill: shade((step + 0.5) / steps)});
    const labels = [[box.left, "0", "start"], [box.right, top.toFixed(2), "end"]];
    const marked = [...new Set(limits.filter(limit => limit <= top))].sort((a, b) => a - b);
    for (const limit of marked) add(svg, "line", {x1: at(limit), x2: at(limit), y1: y - 4, y2: y + 13, class: "limit"});
    if (marked.length) {
      const values = [...new Set(marked.map(limit => limit.toFixed(2)))], middle = marked.reduce((a, b) => a + b) / marked.length;
      const words = `threshold${values.length > 1 ? "s" : ""}: ${values.join(" and ")}`, half = words.length * CHARACTER / 2, room = 5 * CHARACTER;
      labels.push([Math.min(Math.max(at(middle), box.left + room / 2 + half), box.right - room - half), words, "middle"]);
    }
    for (const [x, words, anchor] of labels) add(svg, "text", {x, y: y + 24, "text-anchor": anchor, class: "axis"}, words);
  }

  const symbol = token => token.replace(/[\u0000-\u001f\u007f]/g, character =>
    ({"\n": "⏎", "\t": "⇥", "\u007f": "␡"}[character] ?? String.fromCharCode(0x2400 + character.charCodeAt(0)))).replace(/ /g, "·");
  let columns = []; // [run, spans] of every shown text
  function buildText() { columns = []; text.body.replaceChildren(); }

  function colorText() {
    const pair = pairOf().filter(([, run]) => run.paragraph);
    text.box.hidden = !pair.length;
    if (!pair.length) return;
    if (columns.length !== pair.length || columns.some((column, index) => column.text !== pair[index][1].text)) {
      columns = pair.map(([, run]) => {
        const {tokens: words, copies} = data.texts[run.text], heading = node("h4"), section = node("section", {}, heading), spans = [];
        let line = null;
        words.forEach((word, index) => {
          if (copies[index] !== copies[index - 1]) section.append(line = node("p", {className: "copy"}, node("b", {textContent: `copy ${copies[index]} `})));
          spans.push(node("span", {className: "t", textContent: symbol(word)}));
          line.append(spans.at(-1), node("wbr"));
        });
        return {text: run.text, heading, section, spans, run: null};
      });
      text.body.replaceChildren(...columns.map(column => column.section));
    }
    pair.forEach(([entry, run], index) => {
      const {place} = frameOf(run), column = columns[index], {spans} = column;
      column.heading.textContent = `${entry.name}, seed ${run.seed}`;
      column.run = run;
      spans.forEach((span, at) => {
        const percent = digit(run.paragraph, place * spans.length + at);
        span.className = `t p${Math.min(Math.floor(Math.sqrt(percent / 100) * SHOWN_STEPS), SHOWN_STEPS - 1)}`;
        span.dataset.percent = percent;
      });
    });
    const {tokens: measured} = frameOf(pair.at(-1)[1]);
    text.caption.replaceChildren(node("strong", {textContent: "Probability of every token of the copied paragraph"}),
      ` at ${count(measured)} tokens. Blue: high, orange: low. A model that copies is blue from copy 2 on.`);
  }

  // Numbers as text
  function describe() {
    const own = meanAt(arm()), diffs = runsOf(arm()).map(run => difference(run, tokens())).filter(Number.isFinite);
    const of = diffs.length ? estimate(diffs) : null, over = controlOf(arm()) && !isControl(arm()) && of;
    const decimals = over ? digits(of.mean, (of.high - of.low) / 2) : digits(own.mean);
    const range = over && Number.isFinite(of.low) ? ` [${signed(of.low, decimals)}, ${signed(of.high, decimals)}]` : "";
    const sure = !over ? "" : of.n > 1 ? ` (95% interval over ${of.n} seeds)` : " (one seed, so there is no interval)";
    readout.textContent = `${panel().title}. ${arm().name[0].toUpperCase()}${arm().name.slice(1)} at ${count(tokens())} tokens: ${metric().name.toLowerCase()} `
      + (own.n ? withUnit(own.mean.toFixed(decimals)) + (over ? `, ${signed(of.mean, decimals)}${range} compared with ${controlName()}${sure}` : "") : "was not recorded")
      + (own.n > 1 && !over ? `, mean over ${own.n} seeds.` : ".");
    clearTimeout(describe.timer);
    describe.timer = setTimeout(() => { live.textContent = readout.textContent; }, 400);
  }

  // Hover and click
  function showTip(lines, event) {
    tip.textContent = lines;
    tip.hidden = false;
    const bounds = root.getBoundingClientRect(), {offsetWidth, offsetHeight} = tip;
    tip.style.left = `${Math.max(0, Math.min(event.clientX - bounds.left + 14, bounds.width - offsetWidth))}px`;
    tip.style.top = `${event.clientY - bounds.top - offsetHeight - 12}px`;
  }
  const pointer = (svg, event) => {
    const bounds = svg.getBoundingClientRect();
    return [event.clientX - bounds.left, event.clientY - bounds.top];
  };
  function nearestCurve(event) {
    const [px, py] = pointer(curves.svg, event);
    let best = null;
    for (const entry of visible()) for (const run of runsOf(entry)) gridOf(run).forEach((at, place) => {
      const value = valueAt(run, place), away = Math.hypot(plot.x(at) - px, plot.y(value) - py);
      if (isDrawn(run, place) && away < (best?.away ?? 60)) best = {entry, run, place, value, away};
    });
    return best;
  }
  function nearestDot(event) {
    const [px, py] = pointer(cost.svg, event), away = dot => Math.hypot(dot.x - px, dot.y - py);
    const best = dots.length ? dots.reduce((a, b) => away(b) < away(a) ? b : a) : null;
    return best && away(best) < 40 ? best : null;
  }
  const name = run => `${run.name}`;
  curves.svg.addEventListener("pointermove", event => {
    const start = performance.now(), near = nearestCurve(event);
    heat(near ? arms().indexOf(near.entry) : null);
    if (near) showTip(`${near.entry.name}, seed ${near.run.seed}\n${count(gridOf(near.run)[near.place])} tokens: ${withUnit(near.value.toFixed(3))}\n${name(near.run)}`, event);
    else tip.hidden = true;
    root.dataset.hovered = (performance.now() - start).toFixed(1);
  });
  curves.svg.addEventListener("click", event => {
    const near = nearestCurve(event);
    if (!near) return;
    state.arm = arms().indexOf(near.entry);
    state.frame = Math.max(last(grid(), gridOf(near.run)[near.place]), 0);
    if (seeds().includes(near.run.seed)) seedChoice.select.value = state.seed = near.run.seed;
    move();
  });
  cost.svg.addEventListener("pointermove", event => {
    const near = nearestDot(event);
    heat(near ? arms().indexOf(near.entry) : null);
    if (near) showTip(`${near.entry.name}, seed ${near.run.seed}\n${withUnit(hasControl() ? signed(near.value) : near.value.toFixed(3))}\n${name(near.run)}`, event);
    else tip.hidden = true;
  });
  cost.svg.addEventListener("click", event => {
    const near = nearestDot(event);
    if (!near) return;
    state.arm = arms().indexOf(near.entry);
    if (seeds().includes(near.run.seed)) seedChoice.select.value = state.seed = near.run.seed;
    move();
  });
  heads.svg.addEventListener("pointermove", event => event.target.dataset.tip ? showTip(event.target.dataset.tip, event) : (tip.hidden = true));
  text.body.addEventListener("pointermove", event => {
    const span = event.target.closest("[data-percent]"), column = span && columns.find(candidate => candidate.spans.includes(span));
    if (!column) { tip.hidden = true; return; }
    showTip(`${column.heading.textContent}\n${span.textContent}: ${span.dataset.percent === "99" ? "at least 99" : span.dataset.percent}%`, event);
  });
  text.body.addEventListener("pointerleave", () => { tip.hidden = true; });
  addEventListener("keydown", event => { if (event.key === "Escape") tip.hidden = true; });

  fillPanels();
  Object.assign(state, data.start);
  panels.select.value = state.panel;
  metrics.select.value = state.metric;
  changePanel();
  let width = root.clientWidth;
  new ResizeObserver(() => { if (root.clientWidth !== width) { width = root.clientWidth; drawAll(); } }).observe(root);
})();
