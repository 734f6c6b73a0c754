// Renders an explorer (helpers/widgets/explorer.py) from its description and its answers, in the anywidget shape.
// The same module serves JupyterLab, where a kernel computes, and the book, where page.js hands it a stub model.
// It knows no formula: it shows controls, says which values are wanted, and draws what comes back.
// Needs draw.js before it, and a model with: description, values, answer, status ({kind, text}), badge.

const { fill, blank, forget, make, usePlotlyFrom } = globalThis.hsDraw;
const SLIDER_STEPS = 200; // places of a logarithmic slider
let count = 0;

// In JupyterLab the kernel hands over the Plotly of its Python package; the book has one beside its scripts.
function initialize({ model }) {
  usePlotlyFrom(
    () =>
      new Promise((resolve, reject) => {
        const take = (message, [code]) => {
          if (!message.plotly) return;
          model.off("msg:custom", take);
          const script = document.createElement("script");
          script.src = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
          script.onload = () => resolve(window.Plotly);
          script.onerror = () => reject(new Error("the Plotly of the kernel did not load"));
          document.head.append(script);
        };
        model.on("msg:custom", take);
        model.send({ wants: "plotly" });
      }),
  );
}

function render({ model, el }) {
  const name = `hs-explorer-${++count}`;
  const view = frame(name, model.get("description"));
  const controls = new Map();
  let latest = 0;

  function build() {
    controls.clear();
    const described = model.get("description");
    const boxes = described.controls.map((one) => {
      const control = (one.kind === "range" ? slider : choice)(one, `${name}-${one.name}`, ask);
      controls.set(one.name, control);
      return control.box;
    });
    view.controls.replaceChildren(...boxes);
    view.meaning.replaceChildren(...described.controls.flatMap((one) => help(one, `${name}-${one.name}`)));
    follow();
  }

  // A control was moved.
  function ask() {
    model.set("values", Object.fromEntries([...controls].map(([key, control]) => [key, control.read()])));
    model.save_changes();
  }

  // The controls show the values that are wanted; until an answer comes, the figures are those of others.
  function follow() {
    for (const [key, value] of Object.entries(model.get("values"))) controls.get(key)?.show(value);
    busy(!same(model.get("answer").values, model.get("values")));
  }

  const busy = (whether) => view.section.setAttribute("aria-busy", String(whether));

  async function answer() {
    const found = model.get("answer");
    const turn = ++latest;
    view.trouble.textContent = found.error ?? "";
    view.trouble.hidden = !found.error;
    if (!found.error) {
      view.summary.textContent = found.summary;
      const told = readouts(found.readouts);
      view.readouts.replaceWith(told);
      view.readouts = told;
      await draw(found.figures);
    }
    if (turn === latest && (found.error || same(found.values, model.get("values")))) busy(false);
  }

  async function draw(figures) {
    const places = [...view.figures.children];
    for (const left of places.splice(figures.length)) {
      forget(left);
      left.remove();
    }
    while (places.length < figures.length) {
      const place = blank();
      view.figures.append(place);
      places.push(place);
    }
    const changed = places.filter((place, i) => place.dataset.key !== figures[i].key);
    await Promise.all(
      changed.map((place) => {
        const content = figures[places.indexOf(place)];
        place.dataset.key = content.key;
        return fill(place, content);
      }),
    );
  }

  function status() {
    const { kind, text } = model.get("status");
    view.section.dataset.state = kind;
    view.status.textContent = text;
    view.fields.disabled = kind === "stuck";
    if (kind === "stuck") busy(false);
  }

  const badge = () => (view.badge.textContent = model.get("badge") ?? "");

  view.form.addEventListener("submit", (event) => event.preventDefault());
  view.reset.addEventListener("click", () => {
    for (const one of model.get("description").controls) controls.get(one.name).show(one.value);
    ask();
  });
  const watched = { description: build, values: follow, answer, status, badge };
  for (const [key, listen] of Object.entries(watched)) model.on(`change:${key}`, listen);
  build();
  status();
  badge();
  answer();
  el.replaceChildren(view.section);
  return () => {
    for (const [key, listen] of Object.entries(watched)) model.off(`change:${key}`, listen);
    [...view.figures.children].forEach(forget);
  };
}

// The same elements, in the same order, as page.py writes, so that nothing moves when one takes the other's place.
function frame(name, described) {
  const section = make("div", "hs-body");
  const title = make("p", "hs-explorer-title", described.title);
  title.id = `${name}-title`;
  const badge = make("span", "hs-badge");
  title.append(" ", badge);
  const form = make("form", "hs-form");
  const fields = make("fieldset", "hs-fields");
  fields.setAttribute("aria-labelledby", title.id);
  const controls = make("div", "hs-controls");
  const foot = make("div", "hs-foot");
  const status = make("p", "hs-status");
  const reset = make("button", "hs-reset", "Reset");
  reset.type = "button";
  foot.append(status, reset);
  fields.append(controls);
  form.append(fields, foot);
  const trouble = make("p", "hs-trouble");
  trouble.setAttribute("role", "alert");
  trouble.hidden = true;
  const told = readouts([]);
  const summary = make("p", "hs-summary");
  summary.setAttribute("aria-live", "polite");
  const figures = make("div", "hs-figures");
  const meanings = make("details", "hs-data hs-meanings");
  const meaning = make("dl", "simple hs-meaning");
  meanings.append(make("summary", "", "What the controls mean"), meaning);
  section.append(title, make("p", "hs-intro", described.intro), form, trouble, told, summary, figures, meanings);
  return { section, badge, form, fields, controls, status, reset, trouble, readouts: told, summary, figures, meaning };
}

const same = (these, those) => Object.keys(those).every((key) => these?.[key] === those[key]);

const A_NUMBER = 60; // characters; a longer text is a sentence, and takes a line of its own, as in `page.py`

// Pairs of label and number, or a table with a column for each of those that are compared.
function readouts(found) {
  const compared = [...new Set(found.flatMap((one) => one.of ?? []))];
  if (compared.length) return comparison(found, compared);
  const list = make("dl", "simple hs-readouts");
  for (const { label, text } of found) {
    const pair = make("div");
    if (text.length > A_NUMBER) pair.className = "hs-line";
    pair.append(make("dt", "", label), make("dd", "", text));
    list.append(pair);
  }
  return list;
}

function comparison(found, compared) {
  const table = make("table", "hs-compared");
  const header = (scope, text) => Object.assign(make("th", "", text), { scope });
  table.createTHead().insertRow().append(...["measure", ...compared].map((name) => header("col", name)));
  const body = table.createTBody();
  for (const label of new Set(found.map((one) => one.label))) {
    const row = body.insertRow();
    row.append(header("row", label));
    for (const of of compared)
      row.insertCell().textContent = found.find((one) => one.label === label && one.of === of)?.text ?? "";
  }
  return table;
}

function help(one, id) {
  const words = make("dd", "", one.help);
  words.id = `${id}-help`;
  return [make("dt", "", one.label), words];
}

function box(one, id, input) {
  const control = make("div", "hs-control");
  const label = make("label", "", one.label);
  label.htmlFor = input.id = id;
  input.name = one.name;
  if (one.help) input.setAttribute("aria-describedby", `${id}-help`);
  control.append(label);
  return control;
}

// A native slider. On a logarithmic one every place is a factor, and values stay multiples of the step.
function slider(one, id, ask) {
  const input = make("input");
  input.type = "range";
  const control = box(one, id, input);
  const said = make("output", "hs-value");
  said.htmlFor = id;
  control.append(said, input);
  const span = Math.log(one.maximum / one.minimum);
  const place = one.log
    ? { min: 0, max: SLIDER_STEPS, step: 1 }
    : { min: one.minimum, max: one.maximum, step: one.step };
  Object.assign(input, place);
  const decimals = (String(one.step).split(".")[1] ?? "").length;
  const snap = (value) => {
    const steps = Math.round((value - one.minimum) / one.step);
    return Math.min(one.maximum, Number((one.minimum + steps * one.step).toFixed(decimals)));
  };
  let value = one.value;
  const say = () => {
    const number = value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
    said.textContent = one.unit ? `${number} ${one.unit}` : number;
    input.setAttribute("aria-valuetext", said.textContent);
  };
  const show = (next) => {
    if (next !== value || input.dataset.shown === undefined) {
      input.value = one.log ? Math.round((SLIDER_STEPS * Math.log(next / one.minimum)) / span) : next;
      input.dataset.shown = "";
    }
    value = next;
    say();
  };
  input.addEventListener("input", () => {
    const at = Number(input.value);
    value = snap(one.log ? one.minimum * Math.exp((span * at) / SLIDER_STEPS) : at);
    say();
    ask();
  });
  show(one.value);
  return { box: control, read: () => value, show };
}

function choice(one, id, ask) {
  const input = make("select");
  const control = box(one, id, input);
  const values = one.options.map(([value]) => value);
  for (const [, label] of one.options) input.append(make("option", "", label));
  control.append(input);
  input.addEventListener("change", ask);
  const show = (value) => (input.selectedIndex = values.indexOf(value));
  show(one.value);
  return { box: control, read: () => values[input.selectedIndex], show };
}

export default { initialize, render };
