"use strict";
// Shows the table of all configurations, which can be sorted and filtered, and the curves of its rows.
(() => {
  const source = document.getElementById("explorer-data");
  if (!source) return;
  const { rows, columns, curves, splits: finals } = JSON.parse(source.textContent);
  // Okabe and Ito's colours, which differ for any colour vision and in both themes.
  const colors = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
  const state = { sort: "val", down: true, filters: {}, pinned: [], shown: null, curve: Object.keys(curves)[0] };
  const root = document.getElementById("explorer");

  const make = (tag, parent, attributes = {}, text = "") => {
    const inSvg = ["svg", "path", "line", "text", "circle"].includes(tag);
    const element = inSvg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== "") element.textContent = text;
    parent.append(element);
    return element;
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  const cell = (row, name) => (finals.includes(name) ? row[name] ?? null : row.key[columns.indexOf(name)]);
  const label = (row) => columns.map((name, i) => (i < 2 ? row.key[i] : `${name} ${row.key[i]}`)).join(", ");

  const box = (parent, name, values, chosen, change) => {
    const select = make("select", make("label", parent, {}, name), { "aria-label": name });
    for (const [value, text] of values) make("option", select, { value }, text);
    select.value = chosen;
    select.addEventListener("change", () => change(select.value));
  };
  const filters = make("div", root, { class: "filters" });
  for (const name of columns) {
    const values = [...new Set(rows.map((row) => cell(row, name)))].sort(compare);
    if (values.length < 2) continue;
    box(filters, name, [["", "all"], ...values.map((value) => [String(value), String(value)])], "", (value) => {
      state.filters[name] = value;
      fill();
    });
  }
  box(filters, "curve", Object.entries(curves), state.curve, (value) => {
    state.curve = value;
    draw();
  });
  const clear = make("button", filters, { type: "button" }, "remove kept curves");
  clear.addEventListener("click", () => {
    state.pinned = [];
    mark();
    draw();
  });

  const count = make("p", root, { class: "legend", "aria-live": "polite" });
  const table = make("table", make("div", root, { class: "wide list", role: "group", "aria-label": "All configurations" }));
  const heads = make("tr", make("thead", table));
  for (const name of [...columns, ...finals]) {
    const head = make("th", heads, { scope: "col", "data-name": name });
    make("button", head, { type: "button" }, name).addEventListener("click", () => {
      state.down = state.sort === name ? !state.down : finals.includes(name);
      state.sort = name;
      fill();
    });
  }
  const body = make("tbody", table);
  const chart = make("div", root, { class: "chart" });

  const pin = (row) => {
    state.pinned = state.pinned.includes(row) ? state.pinned.filter((other) => other !== row) : [...state.pinned, row].slice(-colors.length);
    mark();
    draw();
  };
  const show = (row) => {
    state.shown = row;
    draw();
  };

  function fill() {
    const kept = rows.filter((row) => columns.every((name) => !state.filters[name] || String(cell(row, name)) === state.filters[name]));
    // A configuration that diverged has no accuracy, and comes last in both directions.
    kept.sort((a, b) => {
      const [x, y] = [cell(a, state.sort), cell(b, state.sort)];
      if (x === null || y === null) return (x === null) - (y === null);
      return (state.down ? -1 : 1) * compare(x, y);
    });
    count.textContent = `${kept.length} of ${rows.length} configurations`;
    for (const head of heads.children) {
      const sorted = head.dataset.name === state.sort;
      head.setAttribute("aria-sort", sorted ? (state.down ? "descending" : "ascending") : "none");
      head.firstChild.textContent = head.dataset.name + (sorted ? (state.down ? " ▾" : " ▴") : "");
    }
    body.replaceChildren();
    for (const row of kept) {
      const line = make("tr", body, { tabindex: row === kept[0] ? "0" : "-1" });
      line.row = row;
      row.key.forEach((value, i) => make("td", line, i < 2 ? {} : { class: "number" }, String(value)));
      for (const name of finals) make("td", line, { class: "number" }, row.text[name] === "-" ? "diverged" : row.text[name] ?? "");
      line.addEventListener("click", () => pin(row));
      line.addEventListener("keydown", (event) => {
        if (event.key === "Enter") pin(row);
        // The tab key stops at the table once; the arrow keys move within it.
        const next = { ArrowDown: line.nextSibling, ArrowUp: line.previousSibling }[event.key];
        if (!next) return;
        event.preventDefault();
        line.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
      });
      line.addEventListener("mouseenter", () => show(row));
      line.addEventListener("focus", () => show(row));
    }
    mark();
  }

  function mark() {
    for (const line of body.children) {
      const place = state.pinned.indexOf(line.row);
      line.setAttribute("aria-selected", String(place >= 0));
      line.style.setProperty("--mark", colors[place] ?? "transparent");
    }
  }

  function draw() {
    const lines = state.pinned.map((row, i) => [row, colors[i]]);
    if (state.shown && !state.pinned.includes(state.shown)) lines.push([state.shown, "currentColor"]);
    chart.replaceChildren();
    if (!lines.length) return;
    const [width, height, left, bottom, top] = [760, 300, 56, 34, 10];
    const points = lines.map(([row]) => row.curves[state.curve].map((y, i) => [i + 1, y]).filter(([, y]) => y !== null));
    const ys = points.flat().map(([, y]) => y);
    const last = Math.max(2, ...points.flat().map(([x]) => x));
    let [low, high] = ys.length ? [Math.min(...ys), Math.max(...ys)] : [0, 1];
    if (low === high) [low, high] = [low - 0.5, high + 0.5];
    const x = (value) => left + ((value - 1) / (last - 1)) * (width - left - 12);
    const y = (value) => height - bottom - ((value - low) / (high - low)) * (height - bottom - top);
    const svg = make("svg", chart, { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": curves[state.curve] });
    for (const value of ticks(low, high)) {
      make("line", svg, { class: "axis", x1: left, x2: width - 12, y1: y(value), y2: y(value) });
      make("text", svg, { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, String(value));
    }
    for (const value of ticks(1, last).filter(Number.isInteger)) {
      make("text", svg, { x: x(value), y: height - bottom + 18, "text-anchor": "middle" }, String(value));
    }
    make("text", svg, { x: width - 12, y: height - 2, "text-anchor": "end" }, "epoch");
    const legend = make("div", chart, { class: "legend" });
    make("div", legend, {}, curves[state.curve]);
    lines.forEach(([row, color], i) => {
      const path = points[i].map(([a, b], j) => `${j ? "L" : "M"}${x(a).toFixed(1)},${y(b).toFixed(1)}`).join("");
      make("path", svg, { d: path, fill: "none", stroke: color, "stroke-width": 2 });
      if (points[i].length === 1) make("circle", svg, { cx: x(points[i][0][0]), cy: y(points[i][0][1]), r: 3, fill: color });
      const entry = make("div", legend);
      make("i", entry).style.background = color;
      entry.append(label(row));
    });
  }

  function ticks(low, high) {
    const raw = (high - low) / 5;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= raw);
    const found = [];
    for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(Number((i * step).toPrecision(6)));
    return found;
  }

  fill();
  draw();
})();
// A table that is wider than its box says so, and takes the focus, so that the arrow keys scroll it.
const setFocusable = (box) => (box.tabIndex = box.scrollWidth > box.clientWidth ? 0 : -1);
const markWideTables = () => document.querySelectorAll(".wide").forEach(setFocusable);
for (const type of ["load", "resize", "toggle"]) addEventListener(type, markWideTables, true);
