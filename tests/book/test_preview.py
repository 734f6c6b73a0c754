"""After a build: missing pages are named, and the site is served on a terminal only."""

import preview
import pytest

TOC = {
    "format": "jb-book",
    "root": "intro",
    "parts": [
        {"caption": "One", "chapters": [{"file": "a", "sections": [{"file": "b"}]}]},
        {"chapters": [{"file": "c"}]},
    ],
}


def test_the_contents_are_read_in_order():
    assert preview.toc_files(TOC) == ["intro", "a", "b", "c"]


def test_a_page_that_was_not_built_or_is_empty_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: intro\nchapters:\n- file: a\n")
    site = tmp_path / "_build" / "html"
    site.mkdir(parents=True)
    for name in ("index.html", "search.html", "searchindex.js", "intro.html", "a.html"):
        (site / name).write_text("words")
    assert preview.missing_pages(tmp_path, site) == []
    (site / "intro.html").unlink()
    (site / "a.html").write_text("")
    assert preview.missing_pages(tmp_path, site) == ["intro.html", "a.html"]

    monkeypatch.setattr(preview, "ROOT", tmp_path)
    monkeypatch.setattr(preview, "SITE", site)
    monkeypatch.setattr("sys.argv", ["preview.py", "--check", "--serve"])
    assert preview.main() == 1
    assert "intro.html, a.html" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("serve", "terminal", "served"), [(None, True, True), ("0", True, False), (None, False, False), ("1", False, False)]
)
def test_it_serves_on_a_terminal_only_and_never_when_told_not_to(monkeypatch, serve, terminal, served):
    monkeypatch.delenv("SERVE", raising=False)
    if serve is not None:
        monkeypatch.setenv("SERVE", serve)
    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: terminal, raising=False)
    assert preview.may_serve() is served
