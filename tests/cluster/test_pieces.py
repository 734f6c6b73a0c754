"""Pieces of KV: the right layers and pages arrive, and a digest tells when they are not."""

import torch

from helpers.cluster.pieces import Piece, digests

SHAPE = (3, 2, 6, 4, 2, 16)  # layers, K and V, pages, tokens, heads, dim


def pools():
    torch.manual_seed(0)
    return torch.randn(SHAPE), torch.zeros(SHAPE)


def test_a_piece_lands_in_the_pages_of_the_request():
    source, target = pools()
    piece = Piece(0, 1, 3, first=1, pages=[5, 2])
    assert piece.shape(source) == (2, 2, 2, 4, 2, 16)
    assert piece.nbytes(source) == 2 * 2 * 2 * 4 * 2 * 16 * 4
    piece.write(target, [0, 3, 4], piece.read(source))  # pages number 1 and 2 of the request lie in 3 and 4
    assert torch.equal(target[1:3, :, 3], source[1:3, :, 5])
    assert torch.equal(target[1:3, :, 4], source[1:3, :, 2])
    assert not target[0].any() and not target[:, :, [0, 1, 2, 5]].any()  # and nothing else


def test_digests_follow_the_content_alone():
    source, target = pools()
    Piece(0, 0, 3, 0, [5, 2]).write(target, [0, 3], Piece(0, 0, 3, 0, [5, 2]).read(source))
    there = digests(source, range(3), [5, 2])
    assert digests(target, range(3), [0, 3]) == there
    assert len(set(there)) == 6
    target[2, 1, 3, 3, 1, 15] += 1e-6 * target[2, 1, 3, 3, 1, 15].sign()  # one number of the last layer
    changed = digests(target, range(3), [0, 3])
    assert [a != b for a, b in zip(changed, there, strict=True)] == [False] * 5 + [True]
    assert digests(source, range(3), [2, 5]) != there
