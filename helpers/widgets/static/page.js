// Hosts the explorers of a page of the book: shows their precomputed state at once, and computes with the course's own
// Python (Pyodide, in a worker) from the first touch on, or when the page is idle.
// Needs draw.js, hardware.js and figures.js before it.
(() => {
  "use strict";

  // data-pyodide, data-core, data-notice and data-version: see _ext/live.py
  const { src, dataset } = document.currentScript;
  const at = (address) => new URL(address, src).href;
  const own = (name) => at(`${name}?v=${dataset.version}`);
  const IDLE_MS = 1500;
  const WORDS = {
    precomputed: "Precomputed. Move a control, and Python starts in this page.",
    loading: "Starting Python in this page …",
    live: "Live: Python runs in this page, and nothing leaves it.",
    file: "Precomputed: browsers start no Python in a page that is opened as a file. `make book` serves it.",
  };
  const explorers = [];

  // What explorer.js takes for a model: state, and who listens to it.
  class Model {
    #state;
    #listeners = new Map();

    constructor(state, save) {
      this.#state = state;
      this.save_changes = save;
    }
    get(name) {
      return this.#state[name];
    }
    set(name, value) {
      this.#state[name] = value;
      for (const listen of this.#listeners.get(`change:${name}`) ?? []) listen();
    }
    on(event, listen) {
      this.#listeners.set(event, [...(this.#listeners.get(event) ?? []), listen]);
    }
    off(event, listen) {
      const kept = (this.#listeners.get(event) ?? []).filter((one) => one !== listen);
      this.#listeners.set(event, kept);
    }
  }

  // One worker for all explorers of the page. It skips what a later request has overtaken: not every one is answered.
  let worker = null;
  let phase = "precomputed";

  function begin() {
    if (worker || phase === "stuck") return;
    enter("loading", WORDS.loading);
    performance.mark("hs-worker-asked");
    try {
      worker = new Worker(own("worker.js"), { type: "module" });
    } catch (error) {
      stuck(error.message);
      return;
    }
    worker.onerror = (event) => {
      event.preventDefault();
      stuck(event.message || "the worker did not start");
    };
    worker.onmessage = ({ data }) => {
      if (data.ready) performance.mark("hs-worker-ready");
      if (data.ready) enter("live", [WORDS.live, dataset.notice].filter(Boolean).join(" "));
      else if (data.trouble) stuck(data.trouble);
      else explorers[data.place].take(data.number, JSON.parse(data.reply));
    };
    worker.postMessage({ pyodide: at(dataset.pyodide), core: at(dataset.core) });
  }

  function enter(kind, text) {
    phase = kind;
    for (const one of explorers) one.model.set("status", { kind, text });
  }

  function stuck(why) {
    const what = phase === "live" ? "stopped" : "did not start";
    worker?.terminate();
    enter("stuck", `Python ${what} in this page (${why}); what you see is precomputed.`);
    for (const one of explorers) one.goBack();
  }

  let numbers = 0;

  class Explorer {
    #shown = 0; // the number of the answer on the screen
    #first;

    constructor(section) {
      this.place = explorers.length;
      const { description, answer } = JSON.parse(section.querySelector("script.hs-state").textContent);
      this.#first = answer;
      const status = { kind: "precomputed", text: WORDS.precomputed };
      this.model = new Model({ description, answer, values: { ...answer.values }, status }, () => this.ask());
      this.offered = description.controls.find((one) => one.name === "hardware");
      this.badge();
      for (const event of ["pointerdown", "focusin"]) section.addEventListener(event, begin, { once: true });
    }

    ask() {
      const values = this.model.get("values");
      const cost = values.hardware === "mine" ? globalThis.hsHardware.record : null;
      const request = JSON.stringify({ explorer: this.model.get("description").name, values, cost });
      this.badge();
      begin();
      worker?.postMessage({ place: this.place, number: ++numbers, request });
    }

    // An answer to an older question than the one on the screen is stale.
    take(number, answer) {
      if (number <= this.#shown) return;
      this.#shown = number;
      this.model.set("answer", answer);
    }

    goBack() {
      this.model.set("answer", this.#first);
      this.model.set("values", { ...this.#first.values });
      this.badge();
    }

    badge() {
      const key = this.model.get("values").hardware;
      const option = this.model.get("description").controls.find((one) => one.name === "hardware")?.options;
      this.model.set("badge", option?.find(([value]) => value === key)?.[1] ?? "");
    }

    // Takes over the hardware of the page's switch, if this explorer knows it.
    follow({ key, label }) {
      if (!this.offered) return;
      const known = this.offered.options.filter(([value]) => value !== "mine");
      const options = key === "mine" ? [...known, [key, label]] : known;
      if (!options.some(([value]) => value === key)) return;
      const description = this.model.get("description");
      const controls = description.controls.map((one) => (one.name === "hardware" ? { ...one, options } : one));
      this.model.set("description", { ...description, controls });
      if (this.model.get("values").hardware === key && key !== "mine") return;
      this.model.set("values", { ...this.model.get("values"), hardware: key });
      this.ask();
    }
  }

  function idle(section) {
    if (navigator.connection?.saveData) return;
    const watcher = new IntersectionObserver(
      ([entry]) => {
        if (!entry.isIntersecting) return;
        watcher.disconnect();
        setTimeout(() => (globalThis.requestIdleCallback ?? setTimeout)(begin), IDLE_MS);
      },
      { rootMargin: "50%" },
    );
    watcher.observe(section);
  }

  async function start() {
    const sections = [...document.querySelectorAll("section.hs-explorer")];
    if (!sections.length) return;
    try {
      if (location.protocol === "file:") throw new Error(WORDS.file);
      const { default: view } = await import(own("explorer.js"));
      for (const section of sections) {
        const one = new Explorer(section);
        explorers.push(one);
        const el = section.querySelector(".hs-mount");
        view.render({ model: one.model, el });
        document.addEventListener("hs-hardware", ({ detail }) => one.follow(detail));
        const { current, first } = globalThis.hsHardware;
        if (current.key !== first) one.follow(current);
        if (document.readyState === "complete") idle(section);
        else window.addEventListener("load", () => idle(section));
      }
      performance.mark("hs-interactive");
    } catch (error) {
      // The page as it was written stays, with its figures drawn.
      for (const section of sections) section.querySelector(".hs-status").textContent = error.message;
      globalThis.hsFigures.bring(document.querySelectorAll(".hs-mount figure.hs-figure"));
    }
  }

  start();
})();
