"""After a build: are the pages there, and a look at them in a browser.

    python _ext/preview.py --check     exits 1 with the missing pages if the build left any out
    python _ext/preview.py --serve     serves the site on this machine until Ctrl-C; only on a terminal

A build can end well and write nothing (jupyter-book 2 does, on this kind of book), hence the check.
"""

import argparse
import os
import sys
from pathlib import Path

import yaml

from helpers.bench.site import site_server

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_build" / "html"
FIRST_PORT = 8000


def toc_files(toc: dict) -> list[str]:
    """The sources that a table of contents names, without suffix, in reading order."""
    files = [toc[key] for key in ("root", "file") if key in toc]
    for key in ("parts", "chapters", "sections"):
        for entry in toc.get(key, []):
            files += toc_files(entry)
    return files


def expected_pages(root: Path) -> list[str]:
    """Every HTML file that a build of the book at `root` must have written."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    return ["index.html", "search.html", "searchindex.js", *(f"{name}.html" for name in toc_files(toc))]


def missing_pages(root: Path, site: Path) -> list[str]:
    """The expected files that are not there, or are empty."""
    return [name for name in expected_pages(root) if not (site / name).is_file() or not (site / name).stat().st_size]


def may_serve() -> bool:
    """On a terminal, unless SERVE=0."""
    return os.environ.get("SERVE", "1") != "0" and sys.stdout.isatty() and sys.stdin.isatty()


def main() -> int:
    parser = argparse.ArgumentParser(description="Check or show the built book.")
    parser.add_argument("--check", action="store_true", help="fail if a page of the table of contents was not built")
    parser.add_argument("--serve", action="store_true", help="serve the site on 127.0.0.1 when on a terminal")
    wanted = parser.parse_args()
    if wanted.check:
        missing = missing_pages(ROOT, SITE)
        if missing:
            print(f"the build left out: {', '.join(missing)}", file=sys.stderr)
            return 1
        print(f"the book is built: {SITE.relative_to(ROOT) / 'index.html'}")
    if wanted.serve and may_serve():
        try:
            server = site_server(SITE, FIRST_PORT)
        except OSError as error:
            raise SystemExit(str(error)) from None
        with server:
            print(f"read it at http://127.0.0.1:{server.server_port}/ (Ctrl-C ends)", flush=True)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
