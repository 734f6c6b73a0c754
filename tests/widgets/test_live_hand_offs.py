"""Tables of live hand-offs: what stands in which cell."""

from helpers.lessons.ladders import Checked, Rung
from helpers.widgets import live_hand_offs


def test_a_rung_has_its_figures_in_ms_and_a_dash_for_what_it_has_not():
    rungs = {
        "slabs": Rung(
            "slabs",
            {
                "ttft_mean_s": {0: 0.1, 1: 0.2},
                "exposed_mean_s": {0: 0.001, 1: 0.002},
                "hidden_mean_s": {0: 0.03, 1: 0.05},
                "longest_gap_s": {0: 0.007, 1: 0.009},
            },
        ),
        "synced": Rung("synced", {"ttft_mean_s": {0: 0.1, 1: 0.1}, "hidden_mean_s": {0: 0.0, 1: 0.0}}),
        "together": Rung("together", {"ttft_mean_s": {0: 0.05, 1: 0.07}, "longest_gap_s": {0: 0.02, 1: 0.02}}),
    }
    table = live_hand_offs.ladder(rungs, "two draws")
    assert table.columns == ["hand-off", "exposed (ms)", "hidden (ms)", "TTFT (ms)", "longest gap (ms)"]
    assert table.rows == [
        ["slabs", "1.5 (1.0–2.0)", "40.0 (30.0–50.0)", "150.0 (100.0–200.0)", "8.0 (7.0–9.0)"],
        ["synced", "–", "0", "100.0 (100.0–100.0)", "–"],
        ["together", "–", "–", "60.0 (50.0–70.0)", "20.0 (20.0–20.0)"],
    ]


def test_a_fault_shows_what_was_answered_lost_and_right():
    case = {
        "case": "a client leaves", "split": "2P2D", "sent": 40, "finished": 36, "lost": 1, "twice": 2, "same": 35,
        "rerouted": 3, "reasons": {"its client left": 3},
    }  # fmt: skip
    whole = case | {"case": "nothing fails", "finished": 40, "same": 40, "reasons": {}}
    rows = live_hand_offs.faults([case, whole]).rows
    assert rows[0] == ["a client leaves (2P2D)", "36 of 40", "3: its client left", "3", "1 / 2", "35 of 36"]
    assert rows[1][1:3] == ["40 of 40", "0"]


def test_exactness_shows_pages_logits_and_answers():
    row = Checked("control: zero cache", 1, 1040, 1030, 1.25, 0, 8, True)
    assert live_hand_offs.exact([row]).rows == [["control: zero cache", "1,030 of 1,040", "1e+00", "0 of 8"]]


def test_a_machine_with_few_draws_has_ranges_and_says_so():
    few = Rung("synced", {"ttft_mean_s": {0: 0.1, 1: 0.2}})
    many = Rung("synced", {"ttft_mean_s": {0: 0.1, 1: 0.2, 2: 0.3}})
    cores, gpus = live_hand_offs.ladders({"cores": {"synced": many}, "gpus": {"synced": few}}).tables
    assert cores.caption.endswith("3 draws, in brackets 95 % intervals") and "CPU" in cores.caption
    assert gpus.caption.endswith("2 draws, in brackets the range") and "H100" in gpus.caption
