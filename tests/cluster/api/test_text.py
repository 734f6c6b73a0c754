"""Text from tokens: whole characters in time, stop texts never, however the tokens fall."""

from hypothesis import given
from hypothesis import strategies as st

from helpers.cluster.api.text import TextStream
from helpers.engine.tokenizer import ByteTokenizer


def shown(tokens, stops=()):
    stream = TextStream(ByteTokenizer(), stops)
    parts = [stream.add(t) for t in tokens]
    return [*parts, stream.rest()]


@given(st.text(max_size=40))
def test_nothing_is_lost_and_no_character_is_cut(text):
    parts = shown(text.encode())
    assert "".join(parts) == text
    assert "\ufffd" not in "".join(parts) or "\ufffd" in text


def test_a_character_comes_with_its_last_byte():
    assert shown("aé€".encode()) == ["a", "", "é", "", "", "€", ""]


def test_what_is_no_text_does_not_hold_the_rest_back():
    assert "".join(shown([0xFF, 0xFF, 0xFF, 0xFF, ord("a")])) == "\ufffd\ufffd\ufffd\ufffda"
    assert shown([0xE2, 0x82])[-1] == "\ufffd"  # the beginning of a character, at the end of the answer


@given(st.text(alphabet="ab", max_size=30), st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3))
def test_an_answer_ends_before_the_first_stop_text(text, stops):
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    got = "".join(shown(text.encode(), tuple(stops)))
    if not found:
        assert got == text
    else:
        assert text.startswith(got)
        assert all(stop not in got for stop in stops)
        assert len(got) <= min(ends)


def test_what_may_become_a_stop_text_is_held_until_it_does_not():
    assert shown(b"xabay", ("aba!",)) == ["x", "", "", "", "abay", ""]
    assert shown(b"xab", ("aba",)) == ["x", "", "", "ab"]
    assert shown(b"xaba", ("aba",)) == ["x", "", "", "", ""]
