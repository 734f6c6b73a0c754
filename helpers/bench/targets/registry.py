"""Every target by name, found without loading the others."""

from collections.abc import Sequence
from importlib import import_module

from helpers.bench.targets.target import GROUPS, Target
from helpers.errors import InputError

# `group:name` -> where it is defined. Processes are told this place, and load the target from there themselves.
PLACES = {
    "routers:dynamic_routing": "helpers.bench.targets.dynamic_routing:TARGET",
    "routers:early_rejection": "helpers.bench.targets.early_rejection:TARGET",
    "routers:routing_static": "helpers.bench.targets.routing_static:TARGET",
    "disagg:inference_full": "helpers.bench.targets.inference_full:TARGET",
    "disagg:prefill_decode_disagg": "helpers.bench.targets.disagg:LADDER",
    "disagg:prefill_decode_disagg_overlap": "helpers.bench.targets.disagg:OVERLAP",
    "disagg:prefill_decode_disagg_batched": "helpers.bench.targets.disagg:BATCHED",
    "disagg:prefill_decode_disagg_ttft": "helpers.bench.targets.disagg:FIRST",
    "disagg:prefill_decode_disagg_tpot_long": "helpers.bench.targets.disagg:LONG",
}


def load(place: str) -> Target:
    """The target at a place such as `helpers.bench.targets.dynamic_routing:TARGET`."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def places(words: Sequence[str]) -> list[str]:
    """The places of the targets that were named, by group, `group:name` or bare name, each once.

    Raises `InputError` for a name that is none, a bare name that two groups have, and a group without targets.
    """
    if not words:
        raise InputError(f"bench run: name targets with --targets; groups: {', '.join(groups())}, or a target's name")
    return [PLACES[full] for full in dict.fromkeys(full for word in words for full in _full_names(word))]


def groups() -> list[str]:
    """The groups that have targets."""
    return [one for one in GROUPS if any(full.startswith(f"{one}:") for full in PLACES)]


def is_name(word: str) -> bool:
    """Whether a word names a target or a group."""
    return word in GROUPS or word in PLACES or any(full.endswith(f":{word}") for full in PLACES)


def _full_names(word: str) -> list[str]:
    if word in GROUPS:
        found = [full for full in PLACES if full.startswith(f"{word}:")]
        if not found:
            raise InputError(f"group {word} has no targets yet; groups with targets: {', '.join(groups())}")
        return found
    found = [full for full in PLACES if word in (full, full.partition(":")[2])]
    if not found:
        raise InputError(f"target {word!r} is unknown; see `hybrid-serving bench list-targets`")
    if len(found) > 1:
        raise InputError(f"target {word!r} is in several groups; write one of {', '.join(found)}")
    return found
