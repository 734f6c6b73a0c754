// Brings the figures of a page to life: draws them when they come near the screen, and follows the hardware switch.
// Needs draw.js before it. Plotly is loaded once, from beside this file, and only when a figure is to be drawn.
(() => {
  "use strict";

  const { usePlotlyFrom, show, fill, make } = globalThis.hsDraw;
  const here = document.currentScript ? document.currentScript.src : document.baseURI;
  const figures = new Map(); // figure element -> its variants by hardware key, or null

  usePlotlyFrom(
    () =>
      new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = new URL("vendor/plotly.min.js", here).href;
        script.onload = () => resolve(window.Plotly);
        script.onerror = () => reject(new Error("vendor/plotly.min.js did not load"));
        document.head.append(script);
      }),
  );

  const json = (script) => JSON.parse(script.textContent);

  function variantsOf(figure) {
    const scripts = [...figure.querySelectorAll("script.hs-variant")];
    return scripts.length ? new Map(scripts.map((script) => [script.dataset.hardware, script])) : null;
  }

  function bring(elements) {
    for (const figure of elements) {
      const variants = variantsOf(figure);
      figures.set(figure, variants);
      const first = figure.querySelector("script.hs-spec");
      show(figure, first ? json(first) : json(variants.get(figure.dataset.hardware)).spec);
    }
    follow();
  }

  // Shows the variant of the chosen hardware, or says quietly that there is none.
  function follow() {
    const choice = globalThis.hsHardware?.current;
    if (!choice) return;
    for (const [figure, variants] of figures) {
      const found = variants?.get(choice.key);
      if (found && figure.dataset.hardware !== choice.key) {
        figure.dataset.hardware = choice.key;
        fill(figure, json(found));
      }
      remark(figure, variants, choice);
    }
  }

  function remark(figure, variants, choice) {
    const badge = figure.querySelector(".hs-badge");
    if (variants) badge.textContent = globalThis.hsHardware.label(figure.dataset.hardware);
    const same = variants ? variants.has(choice.key) : choice.key === globalThis.hsHardware.first;
    let words = figure.querySelector(".hs-unswitched");
    if (!same && !words) figure.querySelector("figcaption").append((words = make("span", "hs-unswitched")));
    if (words) words.hidden = same;
    const nothing = `Nothing is shown here for ${choice.label}.`;
    if (words) words.textContent = variants ? nothing : "The hardware switch does not change this figure.";
  }

  document.addEventListener("hs-hardware", follow);
  globalThis.hsFigures = { bring };

  // After the first paint: text first, pictures second.
  // An explorer draws its own figures, unless it has to leave them as they are: then it hands them over.
  const start = () => {
    const every = [...document.querySelectorAll("figure.hs-figure")];
    bring(every.filter((figure) => !figure.closest(".hs-explorer")));
  };
  if (document.readyState === "complete") start();
  else window.addEventListener("load", start);
})();
