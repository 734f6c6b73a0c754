"""Pages from pool to pool: a copy a run, whatever the order, and nothing beside them."""

import pytest
import torch

from helpers.cluster import page_copy
from helpers.cluster.page_copy import copy_pages, runs, sides
from helpers.errors import InputError

MINE, THEIRS = [7, 0, 4, 5], [2, 6, 1, 3]


@pytest.fixture(params=[(torch.float32, 16), (torch.bfloat16, 5), (torch.float8_e4m3fn, 3)], ids=str)
def pools(request):
    """Two pools of other sizes, and what the second must be once pages of layers 1 and 2 were copied."""
    dtype, head_dim = request.param
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randn((3, 2, n, 4, 2, head_dim), generator=generator).to(dtype) for n in (9, 7))
    expected = bytes_of(target).clone()
    expected[1:, :, THEIRS] = bytes_of(source)[1:, :, MINE]
    return source, target, expected


def bytes_of(pool):
    return pool.view(torch.uint8)


@pytest.mark.parametrize("most", [page_copy.MOST_PITCH, 1])
def test_pages_of_some_layers_arrive_and_nothing_else_changes(pools, monkeypatch, most):
    """Also where two rows are too far apart for one copy. Control: a table that is off by one."""
    monkeypatch.setattr(page_copy, "MOST_PITCH", most)
    source, target, expected = pools
    copy_pages(sides(source)[2:], sides(target)[2:], [], [])
    copy_pages(sides(source)[2:], sides(target)[2:], MINE, THEIRS)
    assert torch.equal(bytes_of(target), expected)
    copy_pages(sides(source)[2:], sides(target)[2:], MINE, [page - 1 for page in THEIRS])
    assert not torch.equal(bytes_of(target), expected)


def test_what_lies_side_by_side_is_one_copy_for_all_layers(pools, monkeypatch):
    """(rows, bytes of each): two runs of four pages, and a page has 8 numbers for each of the head's dimensions."""
    source, target, _ = pools
    page = 8 * source.shape[-1] * source.element_size()
    seen, copy = [], page_copy._by_host
    noted = lambda *how: seen.append((how[5], how[4])) or copy(*how)  # noqa: E731
    monkeypatch.setattr(page_copy, "_by_host", noted)
    copy_pages(sides(source), sides(target), [3, 4, 5, 8], [0, 1, 2, 6])
    assert seen == [(6, 3 * page), (6, page)]
    seen.clear()
    monkeypatch.setattr(page_copy, "MOST_PITCH", 1)
    copy_pages(sides(source), sides(target), [3, 4, 5, 8], [0, 1, 2, 6])
    assert seen == [(1, 3 * page)] * 6 + [(1, page)] * 6


def test_a_copy_that_is_refused_is_an_error(pools, monkeypatch):
    source, target, _ = pools
    monkeypatch.setattr(page_copy, "_by_host", lambda *how: 12)
    with pytest.raises(RuntimeError, match="error 12"):
        copy_pages(sides(source), sides(target), [0], [0])
    with pytest.raises(InputError, match="pages 0 to 9 are not all in a pool of 9"):
        copy_pages(sides(source), sides(target), [9, 0], [0, 1])


def test_what_is_written_into_is_the_pool_itself(pools):
    """A copy of the pool would take the pages and forget them, so what has no such view is refused."""
    pool, *_ = pools
    bytes_of(sides(pool)[1]).zero_()
    assert not bytes_of(pool[0, 1]).any() and bytes_of(pool[0, 0]).any() and bytes_of(pool[1:]).any()
    with pytest.raises(RuntimeError):
        sides(pool.transpose(0, 1))


def test_runs_go_on_only_where_both_sides_do():
    """Here 3 4 5 | 9, there 0 1 | 5 6: the third page leaps there, the fourth here."""
    assert list(runs([3, 4, 5, 9], [0, 1, 5, 6])) == [(3, 0, 2), (5, 5, 1), (9, 6, 1)]
    assert list(runs([3, 4, 5], [7, 8, 9])) == [(3, 7, 3)]
    assert list(runs([5, 4, 3], [9, 8, 7])) == [(3, 7, 3)]  # backwards on both sides is one run all the same
    assert list(runs([5, 4], [1, 2])) == [(4, 2, 1), (5, 1, 1)]
    assert list(runs([], [])) == []
