// The hardware switch in the header of every page: remembers the choice, and tells figures and explorers of it.
// The choices are in the page (_ext/templates/hardware-switch.html); "mine" is a file of the reader's, kept here.
(() => {
  "use strict";

  const MEMORY = "hs-hardware";
  const COEFFICIENTS = ["overhead_s", "per_prefill_token_s", "per_attention_pair_s", "per_decode_s", "per_kv_token_s"];
  const panel = document.querySelector(".hs-hardware");
  const radios = panel ? [...panel.querySelectorAll("input[type=radio]")] : [];
  const first = radios.find((radio) => radio.defaultChecked)?.value ?? "";
  const own = radios.find((radio) => radio.value === "mine");
  const label = (key) => radios.find((radio) => radio.value === key)?.dataset.label ?? key;
  const state = { first, label, record: null, current: { key: first, label: label(first) } };
  globalThis.hsHardware = state;
  if (!panel) return;

  const trouble = panel.querySelector(".hs-trouble");
  const picker = panel.querySelector("input[type=file]");

  function show() {
    for (const radio of radios) radio.checked = radio.value === state.current.key;
    panel.querySelector(".hs-hardware-now").textContent = state.current.label;
    own.closest("label").hidden = !state.record;
  }

  function choose(key) {
    state.current = { key, label: label(key) };
    trouble.hidden = true;
    show();
    remember({ key, record: state.record });
    document.dispatchEvent(new CustomEvent("hs-hardware", { detail: state.current }));
  }

  function remember(choice) {
    try {
      localStorage.setItem(MEMORY, JSON.stringify(choice));
    } catch {
      // A browser that keeps nothing: the choice holds for this page.
    }
  }

  // What is remembered, if it still makes sense.
  function recall() {
    try {
      const { key, record } = JSON.parse(localStorage.getItem(MEMORY));
      if (record) adopt(checked(record));
      const offered = key === "mine" ? record : radios.some((radio) => radio.value === key);
      if (offered) state.current = { key, label: label(key) };
    } catch {
      // Nothing is remembered, or nothing that can be read.
    }
  }

  function adopt(record) {
    state.record = record;
    own.dataset.label = `Mine: ${record.device}, measured${record.preset ? ` with ${record.preset}` : ""}`;
    own.nextElementSibling.textContent = own.dataset.label;
  }

  // The part of a cost record that is used; throws one sentence if there is none.
  function checked(record) {
    const { coefficients, device, hardware_key, preset, model } = record ?? {};
    const fine = (name) => Number.isFinite(coefficients?.[name]) && coefficients[name] >= 0;
    if (!COEFFICIENTS.every(fine))
      throw new Error("it holds no cost; make one with `hybrid-serving calibrate --json FILE`");
    const name = String(device ?? hardware_key ?? "unnamed").replace(/^NVIDIA /, "");
    // Pages show Llama-3.1-8B: whoever measured another model is told so by the label.
    const measured = String(preset ?? model ?? "");
    return { coefficients, device: name, hardware_key: String(hardware_key ?? "unnamed"), preset: measured };
  }

  async function open(file) {
    try {
      const text = await file.text();
      adopt(checked(parsed(text)));
      choose("mine");
    } catch (error) {
      panel.open = true;
      trouble.textContent = `${file.name} was not taken: ${error.message}.`;
      trouble.hidden = false;
    }
  }

  function parsed(text) {
    try {
      return JSON.parse(text);
    } catch {
      throw new Error("it is not JSON");
    }
  }

  panel.addEventListener("change", ({ target }) => {
    if (target.type === "radio") choose(target.value);
  });
  picker.addEventListener("change", () => {
    const [file] = picker.files;
    picker.value = "";
    if (file) open(file);
  });
  panel.querySelector(".hs-open").addEventListener("click", () => picker.click());
  document.addEventListener("dragover", (event) => {
    if (event.dataTransfer.types.includes("Files")) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    const [file] = event.dataTransfer.files;
    if (!file) return;
    event.preventDefault();
    open(file);
  });
  const close = () => panel.open && (panel.open = false);
  document.addEventListener("click", ({ target }) => panel.contains(target) || close());
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !panel.open) return;
    close();
    panel.querySelector("summary").focus();
  });
  window.addEventListener("storage", (event) => {
    if (event.key !== MEMORY) return;
    recall();
    show();
    document.dispatchEvent(new CustomEvent("hs-hardware", { detail: state.current }));
  });

  recall();
  show();
})();
