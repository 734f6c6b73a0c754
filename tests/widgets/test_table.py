"""Tables of numbers: a caption, headers, and nothing of a cell read as markup."""

import pytest

from helpers.errors import InputError
from helpers.widgets.table import LONG, Table, Tables


def test_html_has_caption_headers_and_cells():
    html = Table("Pace", ["run", "p50"], [["a <b>", "1 s"], ["c", "2 s"]])._repr_html_()
    assert html.count("<tr>") == 3 and "<caption>Pace</caption>" in html
    assert '<th scope="col">p50</th>' in html and '<th scope="row">a &lt;b&gt;</th>' in html and "<td>2 s</td>" in html


def test_only_long_cells_may_be_broken():
    html = Table("Long", ["run", "command"], [["a", "x" * LONG], ["b", "x" * (LONG + 1)]])._repr_html_()
    assert html.count('class="hs-long"') == 1


def test_text_is_one_line_a_row():
    assert str(Table("Pace", ["run", "p50"], [["a", "1 s"]])) == "Pace\nrun\tp50\na\t1 s"


def test_a_row_of_another_length_is_refused():
    with pytest.raises(InputError, match="1 cells for 2 columns"):
        Table("Pace", ["run", "p50"], [["a"]])


def test_tables_are_shown_one_below_the_other():
    one, other = Table("Pace", ["run"], [["a"]]), Table("Cost", ["run"], [["b"]])
    both = Tables([one, other])
    assert both._repr_html_() == one._repr_html_() + other._repr_html_() and str(both).splitlines()[0] == "Pace"
    assert str(both).split("\n\n") == [str(one), str(other)]
