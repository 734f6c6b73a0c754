// Draws figures (the dictionaries of helpers/widgets/show.py) in the colours of the page around them.
// Evaluated once by a page of the book, and in front of explorer.js by JupyterLab; all of it is in `hsDraw`.
(() => {
  "use strict";
  if (globalThis.hsDraw) return;

  const NEAR = "600px";
  const NARROW = matchMedia("(max-width: 600px)");
  const ROW_LETTERS = 18; // longer names of rows leave a narrow picture no room
  const ROW_PX = 34; // two lines of a name
  const config = { responsive: true, displayModeBar: false };
  const shown = new Map(); // figure element -> what it is to show: {spec}
  let load = () => Promise.reject(new Error("no Plotly at hand"));
  let library = null;

  const make = (tag, kind, text) => {
    const element = document.createElement(tag);
    if (kind) element.className = kind;
    if (text !== undefined) element.textContent = text;
    return element;
  };

  // `loader` promises Plotly; it is called once, when the first figure comes near the screen.
  function usePlotlyFrom(loader) {
    load = loader;
  }

  function plotly() {
    library ??= load().catch((error) => {
      library = null; // the next figure may have more luck
      throw error;
    });
    return library;
  }

  // Plotly bakes colours into a picture, so they are read from the style sheets of the book or of JupyterLab.
  function pageColours(figure) {
    const style = getComputedStyle(document.body);
    const read = (...names) => names.map((name) => style.getPropertyValue(name).trim()).find(Boolean);
    const page = groundOf(figure);
    return {
      text: read("--pst-color-text-base", "--jp-ui-font-color1") ?? "#1f2430",
      rule: read("--pst-color-border", "--jp-border-color2") ?? "#d5d9e0",
      surface: read("--pst-color-surface", "--jp-layout-color1") ?? "#ffffff",
      veil: page.length === 3 ? `rgba(${page.join(",")},0.7)` : "rgba(0,0,0,0)",
      font: style.fontFamily,
    };
  }

  // Red, green and blue of what lies behind an element; empty when it cannot be told.
  function groundOf(element) {
    for (let behind = element; behind; behind = behind.parentElement) {
      const colour = getComputedStyle(behind).backgroundColor.match(/[0-9.]+/g) ?? [];
      if (colour.length === 3) return colour;
    }
    return [];
  }

  // A text in lines of at most `most` letters, broken at spaces and after underscores.
  function broken(text, most) {
    const lines = [""];
    for (const piece of text.match(/[^ _]*[ _]?/g)) {
      if (lines.at(-1) && (lines.at(-1) + piece.trimEnd()).length > most) lines.push("");
      lines[lines.length - 1] += piece;
    }
    return lines.map((line) => line.trimEnd()).join("<br>");
  }

  // On a narrow page long names of rows are broken into lines, and the rows made high enough for them.
  function breakRows(layout) {
    const rows = layout.yaxis?.categoryarray ?? [];
    const lines = rows.map((name) => broken(name, ROW_LETTERS));
    if (lines.every((line, i) => line === rows[i])) return;
    Object.assign(layout.yaxis, { tickmode: "array", tickvals: rows, ticktext: lines });
    layout.height = Math.max(layout.height, 180 + ROW_PX * rows.length);
  }

  // The titles of axes that reach over an edge of the picture are broken into lines that do not.
  async function fitTitles(Plotly, place) {
    const edge = place.getBoundingClientRect();
    const change = {};
    for (const [axis, kind, low, high] of [
      ["xaxis", ".xtitle", "left", "right"],
      ["yaxis", ".ytitle", "top", "bottom"],
    ]) {
      const title = place.querySelector(kind);
      if (!title) continue;
      const box = title.getBoundingClientRect();
      const over = Math.max(edge[low] - box[low], box[high] - edge[high]);
      const text = place.layout[axis].title.text;
      const share = 1 - (2 * over) / (box[high] - box[low]);
      if (over > 0) change[`${axis}.title.text`] = broken(text, Math.floor(share * text.length));
    }
    if (Object.keys(change).length) await Plotly.relayout(place, change);
  }

  // The spec in the colours of the page. The caption above the picture says title and note, and wraps when narrow.
  function themed(figure, spec) {
    const { text, rule, surface, veil, font } = pageColours(figure);
    const { title, ...layout } = structuredClone(spec.layout);
    layout.margin = { ...layout.margin, t: 20 };
    if (NARROW.matches) breakRows(layout);
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = { ...layout.font, color: text, family: font };
    layout.hoverlabel = { bgcolor: surface, font: { color: text } };
    for (const label of layout.annotations ?? []) label.bgcolor = veil;
    for (const name of Object.keys(layout).filter((key) => /^[xy]axis/.test(key)))
      Object.assign(layout[name], { gridcolor: rule, linecolor: text, tickcolor: text });
    const data = spec.data.map((trace) => {
      const bar = trace.orientation === "h" ? "error_x" : "error_y";
      const inked = trace.type === "bar" && trace[bar];
      return inked ? { ...trace, [bar]: { ...trace[bar], color: text } } : trace;
    });
    return { data, layout };
  }

  async function paint(figure) {
    const place = figure.querySelector(".hs-plot");
    const { spec } = shown.get(figure);
    if (figure.dataset.state !== "drawn") figure.dataset.state = "drawing";
    try {
      const Plotly = await plotly();
      const { data, layout } = themed(figure, spec);
      await Plotly.react(place, data, layout, config);
      await fitTitles(Plotly, place);
      figure.dataset.state = "drawn";
    } catch (error) {
      figure.dataset.state = "failed";
      place.textContent = `The picture could not be drawn. ${place.getAttribute("aria-label")}`;
      console.error("figure not drawn:", error);
    }
  }

  const near = new Set();
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) near.add(target);
        else near.delete(target);
        if (isIntersecting && !target.dataset.state) paint(target);
      }
    },
    { rootMargin: NEAR },
  );

  // Shows `spec` in a figure element: at once if it was drawn before and is near the screen, else when it comes near.
  async function show(figure, spec) {
    const known = shown.has(figure);
    shown.set(figure, { spec });
    if (!known) watcher.observe(figure);
    else if (near.has(figure)) await paint(figure);
    else delete figure.dataset.state;
  }

  function forget(figure) {
    watcher.unobserve(figure);
    near.delete(figure);
    shown.delete(figure);
  }

  function repaint() {
    for (const figure of [...shown.keys()]) {
      if (!figure.isConnected) forget(figure);
      else if (figure.dataset.state === "drawn") paint(figure);
    }
  }

  // The markup of Figure.to_html, empty.
  function blank() {
    const figure = make("figure", "hs-figure");
    const caption = make("figcaption");
    const head = make("span", "hs-head");
    head.append(make("span", "hs-title"));
    caption.append(head, " ", make("span", "hs-note"));
    const place = make("div", "hs-plot");
    place.setAttribute("role", "img");
    const details = make("details", "hs-data");
    const table = make("div", "hs-table");
    table.setAttribute("role", "region");
    table.tabIndex = 0;
    details.append(make("summary"), make("p", "hs-alt"), table);
    figure.append(caption, place, details);
    return figure;
  }

  // Fills a figure element with the words, the table and the picture of one figure dictionary.
  function fill(figure, content) {
    const say = (kind, text) => (figure.querySelector(kind).textContent = text);
    say(".hs-title", content.title);
    say(".hs-note", content.note);
    say("details .hs-alt", content.alt);
    const place = figure.querySelector(".hs-plot");
    place.setAttribute("aria-label", content.alt);
    place.style.minHeight = `${content.spec.layout.height}px`;
    const total = content.rows.length + content.rows_left_out;
    const thinned = `(${content.rows.length} of ${total.toLocaleString("en")} points, evenly taken)`;
    say("details summary", content.rows_left_out ? `Data and description ${thinned}` : "Data and description");
    fillTable(figure, content);
    return show(figure, content.spec);
  }

  // The rows are written when they are looked at: most tables stay closed.
  function fillTable(figure, content) {
    const details = figure.querySelector("details");
    const table = details.querySelector(".hs-table");
    table.setAttribute("aria-label", `Data of the figure: ${content.title}`);
    const write = () => table.replaceChildren(tableOf(content));
    details.ontoggle = () => details.open && write();
    if (details.open) write();
    else table.replaceChildren();
  }

  function tableOf({ columns, rows }) {
    const table = make("table");
    const head = table.createTHead().insertRow();
    for (const name of columns) head.append(Object.assign(make("th", "", name), { scope: "col" }));
    const body = table.createTBody();
    for (const row of rows) {
      const line = body.insertRow();
      for (const text of row) line.insertCell().textContent = text;
    }
    return table;
  }

  // Paper has no near and far.
  window.addEventListener("beforeprint", () => {
    for (const figure of shown.keys()) if (!figure.dataset.state) paint(figure);
  });
  NARROW.addEventListener("change", repaint);
  const themes = new MutationObserver(repaint);
  themes.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  themes.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name"] });

  globalThis.hsDraw = { usePlotlyFrom, show, fill, blank, forget, make };
})();
