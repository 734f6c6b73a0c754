"""A published figure beside ours: what is drawn is what the record says."""

import pytest

from helpers.widgets.published import ARMS, beside_paper, set_ups


def rows(label: str = "as recorded", scale: float = 1.0, unstable: bool = False) -> list[dict]:
    means = dict(zip(ARMS, (18.0, 5.0, 2.5, 2.0), strict=True))
    return [
        {
            "varied": "base",
            "label": label,
            "arm": arm,
            "ttft_s": scale * mean,
            "low_s": scale * mean - 0.5,
            "high_s": scale * mean + 0.5,
            "ratio": None if unstable else mean / means["global"],
            "paper_ttft_s": 10.0 * mean,
        }
        for arm, mean in means.items()
    ]


def test_the_paper_and_every_set_up_are_drawn_with_their_seeds():
    figure = beside_paper([*rows(), *rows("spread", 0.5)], ("as recorded", "spread"), 12_031).spec
    published, recorded, spread = figure["data"]
    assert list(published["y"]) == [180.0, 50.0, 25.0, 20.0]
    assert list(recorded["y"]) == [18.0, 5.0, 2.5, 2.0]
    assert list(spread["y"]) == [9.0, 2.5, 1.25, 1.0]
    assert recorded["error_y"]["array"] == pytest.approx([0.5] * 4)


def test_a_set_up_that_is_missing_is_not_drawn_as_something_else():
    with pytest.raises(KeyError):
        beside_paper(rows(), ("as recorded", "spread"), 12_031)


def test_the_table_has_a_line_for_each_set_up_and_no_ratio_past_the_knee():
    table = set_ups([*rows(), *rows("slow links", 3.0, unstable=True)], "study")
    assert [row[0] for row in table.rows] == ["base: as recorded", "base: slow links"]
    assert table.rows[0][1:] == ("18.00", "5.00", "2.50", "2.00", "9.00 : 2.50 : 1.25")
    assert table.rows[1][-1] == "past its knee"
