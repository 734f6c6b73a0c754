// Draws the figures of a page (see helpers/widgets/show.py) and keeps them in the colours of the page.
// Plotly is loaded once, from beside this file, and only when a figure comes near the screen.
(() => {
  "use strict";

  const here = document.currentScript ? document.currentScript.src : document.baseURI;
  const specs = new Map();
  let library = null;

  function plotly() {
    library ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL("vendor/plotly.min.js", here).href;
      script.onload = () => resolve(window.Plotly);
      script.onerror = () => reject(new Error("vendor/plotly.min.js did not load"));
      document.head.append(script);
    });
    return library;
  }

  // Plotly bakes colours into the picture, so they are read from the page's style sheet.
  function pageColours(labels) {
    const style = getComputedStyle(document.documentElement);
    const read = (name, fallback) => style.getPropertyValue(name).trim() || fallback;
    const text = read("--pst-color-text-base", "#1f2430");
    const rule = read("--pst-color-border", "#d5d9e0");
    const colours = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      "font.color": text,
      "font.family": getComputedStyle(document.body).fontFamily,
      "hoverlabel.bgcolor": read("--pst-color-surface", "#ffffff"),
      "hoverlabel.font.color": text,
    };
    // Labels of marks stay readable over a line, and let it shine through.
    const page = getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g) ?? [];
    const veil = page.length === 3 ? `rgba(${page.join(",")},0.7)` : "rgba(0,0,0,0)";
    for (let i = 0; i < labels; i++) colours[`annotations[${i}].bgcolor`] = veil;
    for (const axis of ["xaxis", "yaxis"]) {
      colours[`${axis}.gridcolor`] = rule;
      colours[`${axis}.linecolor`] = text;
      colours[`${axis}.tickcolor`] = text;
    }
    return colours;
  }

  // Draws the picture if it is not there yet, and gives it the colours of the page.
  async function paint(place) {
    const Plotly = await plotly();
    const { data, layout } = specs.get(place);
    const colours = pageColours((layout.annotations ?? []).length);
    const bars = data.flatMap((trace, i) => (trace.type === "bar" && trace.error_y ? [i] : []));
    if (!place.data) await Plotly.newPlot(place, data, layout, { responsive: true, displayModeBar: false });
    await Plotly.relayout(place, colours);
    if (bars.length) await Plotly.restyle(place, { "error_y.color": colours["font.color"] }, bars);
  }

  async function draw(figure) {
    if (figure.dataset.state) return;
    figure.dataset.state = "drawing";
    const place = figure.querySelector(".hs-plot");
    try {
      const spec = JSON.parse(figure.querySelector("script.hs-spec").textContent);
      // The caption above the picture says the title and the note, and wraps on a narrow screen.
      delete spec.layout.title;
      spec.layout.margin.t = 20;
      specs.set(place, spec);
      await paint(place);
      figure.dataset.state = "drawn";
    } catch (error) {
      figure.dataset.state = "failed";
      place.textContent = `The picture could not be drawn. ${place.getAttribute("aria-label")}`;
      console.error("figure not drawn:", error);
    }
  }

  function start() {
    const figures = [...document.querySelectorAll("figure.hs-figure")];
    if (!figures.length) return;
    const watcher = new IntersectionObserver(
      (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
      { rootMargin: "600px" },
    );
    figures.forEach((figure) => watcher.observe(figure));
    window.addEventListener("beforeprint", () => figures.forEach(draw));
    new MutationObserver(() => [...specs.keys()].forEach(paint)).observe(document.documentElement, {
      attributes: true,
      attributeFilter: ["data-theme"],
    });
  }

  // After the first paint: text first, pictures second.
  if (document.readyState === "complete") start();
  else window.addEventListener("load", start);
})();
