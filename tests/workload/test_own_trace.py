"""What `data/traces/README.md` tells those who bring their own trace: the sample loads, the code makes right ids."""

import re

import pytest

from helpers.errors import InputError
from helpers.paths import data_file
from helpers.workload.formats import FORMATS
from helpers.workload.hygiene import describe
from helpers.workload.traces import load

SECTION = data_file("traces", "README.md").read_text(encoding="utf-8").partition("## Your own trace\n")[2]
SECTION = SECTION.partition("\n## ")[0]
SAMPLE = re.search(r"```\n(arrival_s,.*?)```", SECTION, re.DOTALL)[1]


def blocks_of():
    made = {}
    exec(re.search(r"```python\n(.*?)```", SECTION, re.DOTALL)[1], made)
    return made["prefix_blocks"]


def test_the_sample_loads_as_it_stands(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(SAMPLE)
    first, second = load(path)[0]
    assert (first.prompt_tokens, second.arrival_s, second.prefix_blocks) == (1200, 0.35, (0, 1, 3))
    path.write_text(SAMPLE.replace(",0 1 2", ",0 1"))  # control: 1,200 tokens are three blocks, not two
    with pytest.raises(InputError, match="not one block id per 512 prompt tokens"):
        load(path)


def test_the_code_gives_an_id_to_a_beginning_and_not_to_a_block():
    prefix_blocks, known = blocks_of(), {}
    one, two, three = [7, 7, 1, 1, 5], [7, 7, 1, 1, 6], [8, 8, 1, 1, 5]
    assert [prefix_blocks(tokens, known, 2) for tokens in (one, two, three)] == [[0, 1, 2], [0, 1, 3], [4, 5, 6]]
    assert prefix_blocks(one, known, 2) == [0, 1, 2]


@pytest.mark.parametrize("chained", [True, False])
def test_a_trace_with_ids_of_single_blocks_is_noticed(chained, tmp_path):
    """The control of the code above: the same tokens, each block named by itself, however the prompt began."""
    prefix_blocks, known = blocks_of(), {}
    prompts = [[who] * 512 + [9] * 512 for who in range(4)]
    alone = lambda tokens: [hash(tuple(tokens[at : at + 512])) % 2**32 for at in (0, 512)]  # noqa: E731
    ids = [prefix_blocks(one, known) if chained else alone(one) for one in prompts]
    rows = [f"{n},1024,5,{' '.join(map(str, one))}" for n, one in enumerate(ids)]
    path = tmp_path / "own.csv"
    path.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens,prefix_blocks", *rows]) + "\n")
    noticed = [one for one in describe(load(path)[0]).findings if "not chained hashes" in one]
    assert len(noticed) == (0 if chained else 1)


def test_every_field_of_the_format_is_told():
    own = FORMATS["own-csv"]
    assert [name for name in sorted(own.required | own.optional) if name not in SECTION] == []
    assert "think_time_ms" not in SECTION  # control: a name that is no field
