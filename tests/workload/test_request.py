"""Workloads made from others: what stays, what changes, and that it is recorded."""

from helpers.workload.generate import generate


def test_without_prefixes_nothing_but_the_hashes_goes():
    whole = generate("conversation", rate_per_s=2.0, requests=50, seed=3)
    bare = whole.without_prefixes()
    assert any(r.prefix_blocks for r in whole) and not any(r.prefix_blocks for r in bare)
    assert [(r.id, r.arrival_s, r.prompt_tokens, r.output_tokens, r.session) for r in bare] == [
        (r.id, r.arrival_s, r.prompt_tokens, r.output_tokens, r.session) for r in whole
    ]
    assert bare.repairs == (*whole.repairs, "no shared prefixes") and bare.sha256 != whole.sha256
