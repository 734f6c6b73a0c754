"""The slides of a lab as one HTML file: run, their figures drawn, and code only where there is nothing else to show."""

from pathlib import Path

from helpers.errors import InputError
from helpers.paths import ROOT

STATIC = ROOT / "helpers" / "widgets" / "static"
STYLES, SCRIPTS = ("figures.css", "slides.css"), ("draw.js", "figures.js")
LIMIT_S = 900  # of one cell
OWN_PLOTLY = "hsDraw.usePlotlyFrom(async () => window.Plotly);"
MISSING = "slides need {}; pip install -e '.[labs]' nbconvert"


def deck(path: Path, reveal: str | None = None, run: bool = True) -> str:
    """The HTML of the notebook of slides at `path`; `reveal` is where reveal.js lies (None: a public address).

    Raises `InputError` where nbconvert or Plotly is missing, and for a cell that fails.
    """
    try:
        import nbformat
        from nbconvert import SlidesExporter
        from nbconvert.preprocessors import CellExecutionError, ExecutePreprocessor
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise InputError(MISSING.format(error.name)) from None

    slides = nbformat.read(path, as_version=4)
    if run:
        try:
            ExecutePreprocessor(timeout=LIMIT_S).preprocess(slides, {"metadata": {"path": str(path.parent)}})
        except CellExecutionError as error:
            raise InputError(f"{path}: a cell fails with {error.ename}: {error.evalue}") from None
    for cell in slides.cells:
        if cell.cell_type == "code" and cell.outputs:
            cell.metadata["transient"] = {"remove_source": True}
    exporter = SlidesExporter(exclude_input_prompt=True, exclude_output_prompt=True)
    if reveal:
        exporter.reveal_url_prefix = reveal
    return _alive(exporter.from_notebook_node(slides)[0], get_plotlyjs())


def _alive(html: str, plotly: str) -> str:
    """With Plotly before everything else, as later scripts change how libraries load, and our scripts at the end."""
    head, body = html.split("<head>", 1)
    body, end = body.rsplit("</body>", 1)
    styles = "".join(f"<style>\n{(STATIC / name).read_text(encoding='utf-8')}</style>\n" for name in STYLES)
    scripts = [(STATIC / name).read_text(encoding="utf-8") for name in SCRIPTS] + [OWN_PLOTLY]
    first, after = _script(plotly), "".join(map(_script, scripts))
    start, rest = body.split("</head>", 1)
    return f"{head}<head>{first}{start}{styles}</head>{rest}{after}</body>{end}"


def _script(text: str) -> str:
    """A script element; no text in it can end it early."""
    return f"<script>\n{text.replace('</script', '<' + chr(92) + '/script')}\n</script>\n"
