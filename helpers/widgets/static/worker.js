// The Python of a page: the portable core of the course under Pyodide, in a module worker. page.js starts it with the
// addresses of Pyodide and of the core, then sends requests; of those that wait, the latest of each explorer counts.
const wanted = new Map(); // place of the explorer in the page -> its latest request
let reply = null; // helpers.widgets.explorers.registry.reply
let due = false;

self.onmessage = ({ data }) => {
  if (data.core) begin(data);
  else {
    wanted.set(data.place, data);
    soon();
  }
};

async function begin({ pyodide, core }) {
  try {
    const zip = fetch(core);
    const { loadPyodide } = await import(new URL("pyodide.mjs", pyodide).href);
    const python = await loadPyodide({ indexURL: pyodide });
    const answer = await zip;
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}: ${core}`);
    python.unpackArchive(await answer.arrayBuffer(), "zip", { extractDir: "/course" });
    python.runPython("import sys; sys.path.insert(0, '/course')");
    reply = python.pyimport("helpers.widgets.explorers.registry").reply;
    self.postMessage({ ready: true });
    soon();
  } catch (error) {
    self.postMessage({ trouble: lastLine(error) });
  }
}

// Of a Python traceback, what went wrong.
const lastLine = (error) => String(error.message ?? error).trim().split("\n").at(-1);

// After the messages that have arrived already, which may overtake one another.
function soon() {
  if (due || !reply || !wanted.size) return;
  due = true;
  setTimeout(answer);
}

function answer() {
  due = false;
  const [[place, { number, request }]] = wanted;
  wanted.delete(place);
  try {
    self.postMessage({ place, number, reply: reply(request) });
  } catch (error) {
    self.postMessage({ place, number, reply: JSON.stringify({ error: `No answer: ${lastLine(error)}` }) });
  }
  soon();
}
