// Runs a Python source under Pyodide on the zip of the core: node pyodide_run.mjs PYODIDE_DIR CORE_ZIP SOURCE INPUT
// The source finds the input as the text `given` and leaves its answer as the text `found`, which is printed.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, core, source, input] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(`${folder}/pyodide.mjs`).href);
const python = await loadPyodide({ indexURL: `${folder}/` });
python.unpackArchive(new Uint8Array(readFileSync(core)), "zip", { extractDir: "/course" });
python.runPython("import sys; sys.path.insert(0, '/course')");
python.globals.set("given", readFileSync(input, "utf-8"));
python.runPython(readFileSync(source, "utf-8"));
process.stdout.write(python.globals.get("found"));
