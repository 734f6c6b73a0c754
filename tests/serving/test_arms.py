"""Which routers are compared, and how the text of a parameter finds its way to those that have it."""

import pytest

from helpers.errors import InputError
from helpers.policies.catalogue import ROUTERS
from helpers.serving.arms import arms_of, routers_of, settings
from helpers.serving.draws import UNDRAWN
from helpers.serving.experiment import Experiment

QUESTION = Experiment(UNDRAWN)


def test_all_is_every_router_of_the_catalogue_and_the_oracle_only_when_asked_for():
    assert routers_of(["all"]) == tuple(ROUTERS)
    assert routers_of(["all", "oracle"]) == (*ROUTERS, "oracle")
    others = [name for name in ROUTERS if name != "mooncake"]
    assert routers_of(["mooncake", "all"]) == ("mooncake", *others)  # the first is what the others are compared with
    assert routers_of(["least_tokens", "random"]) == ("least_tokens", "random")


def test_a_parameter_goes_to_those_that_have_it():
    names = ("round_robin", "least_tokens", "prefix_approx")
    found = settings("router", names, ["kv_weight=1", "capacity_blocks=none", "ttl_s=2.5"])
    assert found == {
        "round_robin": {},
        "least_tokens": {"kv_weight": 1.0},
        "prefix_approx": {"kv_weight": 1.0, "capacity_blocks": None, "ttl_s": 2.5},
    }
    assert type(found["least_tokens"]["kv_weight"]) is float  # of the parameter's type, not of the text's look


def test_the_routers_are_made_with_it():
    arms = arms_of(QUESTION, ("least_tokens", "oracle"), ["kv_weight=0.7", "objective=ttft_s"])
    assert arms["least_tokens"].make_routers()[0].kv_weight == 0.7
    assert arms["oracle"].make_routers()[0].objective == "ttft_s"
    assert arms_of(QUESTION, ("least_tokens",))["least_tokens"].make_routers()[0].kv_weight != 0.7  # the control


@pytest.mark.parametrize(
    ("names", "texts", "sentence"),
    [
        (("random", "least_tokens"), ["speed=3"], "none of the routers has a parameter 'speed'"),
        (("random",), ["kv_weight=1"], "router random: parameter 'kv_weight' is unknown; it has none"),
        (("least_tokens",), ["kv_weight"], "router parameter 'kv_weight'; write KEY=VALUE"),
        (("least_tokens",), ["=1"], "write KEY=VALUE"),
        (("least_tokens",), ["kv_weight=heavy"], "router least_tokens: kv_weight is 'heavy'; give a number"),
        (("static_shard",), ["leading_blocks=1.5"], "leading_blocks is '1.5'; give a whole number"),
        (("least_tokens",), ["kv_weight=1", "kv_weight=2"], "kv_weight was given twice"),
    ],
)
def test_bad_texts_are_one_sentence(names, texts, sentence):
    with pytest.raises(InputError, match=sentence):
        settings("router", names, texts)


def test_a_value_out_of_range_is_refused_before_anything_runs():
    with pytest.raises(InputError, match="kv_weight"):
        arms_of(QUESTION, ("least_tokens",), ["kv_weight=-1"])


@pytest.mark.parametrize(
    ("names", "sentence"),
    [(["fastest"], "router 'fastest' is unknown"), (["random", "random"], "router random was given twice")],
)
def test_bad_routers_are_refused(names, sentence):
    with pytest.raises(InputError, match=sentence):
        routers_of(names)
