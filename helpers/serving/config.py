"""A deployment's configuration: YAML read key by key, checked, and turned into an experiment."""

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from helpers.errors import InputError
from helpers.models import model as model_of
from helpers.serving.config_schema import Deployment
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.request import Workload

CLOSE = 0.5  # how alike two names must be for the one to be proposed for the other: 0 not at all, 1 the same
MOST_GPUS = 64
# Options of `hybrid-serving simulate` that a configuration takes the place of.
BESIDE = ("model", "workers", "split", "router", "router_set", "admission", "admission_set", "scaler", "scaler_set")
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def read_config(path: str | Path) -> Deployment:
    """The configuration in a YAML file.

    Raises `InputError`, which names the file and the key, for a file that cannot be read or is no YAML, for
    an unknown, missing or repeated key, and for a value of the wrong type or out of range.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; data/dynamo_config.yaml is one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the configuration cannot be read ({error}); give a text file") from None
    try:
        made = parse(_load(text))
        model_of(made.model)
        return made
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def parse(given: object, group: type = Deployment, path: str = "") -> Any:
    """A group of keys from the mapping under `path`; raises `InputError` naming the key that is wrong."""
    known = {one.name: one for one in fields(group)}
    if not isinstance(given, Mapping):
        where = path or "the configuration"
        raise InputError(f"{where} is {_shown(given)}; give it the keys {', '.join(known)}")
    for name in given:
        if name not in known:
            close = get_close_matches(str(name), known, 1, CLOSE)
            hint = f"did you mean {close[0]}?" if close else f"the keys there are {', '.join(known)}"
            raise InputError(f"{_join(path, name)} is unknown; {hint}")
    for name in known:
        if name not in given:
            raise InputError(f"{_join(path, name)} is missing; every key must be given")
    return group(**{name: _value(given[name], one, _join(path, name)) for name, one in known.items()})


def _value(given: object, one: Any, path: str) -> object:
    """The value of one key, in its type and range."""
    if is_dataclass(one.type):
        return parse(given, one.type, path)
    kind = one.type
    if type(given) is not kind and not (kind is float and type(given) is int):
        raise InputError(f"{path} is {_shown(given)}; give {KINDS[kind]}")
    low, high = one.metadata["low"], one.metadata["high"]
    if kind in (int, float) and not (low <= given <= high and given < float("inf")):
        bounds = f"from {low:g} to {high:g}" if high < float("inf") else f"of {low:g} or more"
        raise InputError(f"{path} is {given}; give {KINDS[kind]} {bounds}")
    return kind(given)


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _shown(given: object) -> str:
    """A value as it may stand in one sentence."""
    return "empty" if given is None else "a list" if isinstance(given, list) else repr(given)


def _load(text: str) -> object:
    """The YAML text as plain values; a key that stands twice is refused, which YAML itself lets pass."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Plain values only."""

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict:
        seen = [loader.construct_object(name) for name, _ in node.value]
        for place, (name, (mark, _)) in enumerate(zip(seen, node.value, strict=True)):
            line = mark.start_mark.line + 1
            if not isinstance(name, str):
                raise InputError(f"line {line}: a key is {_shown(name)}; give a name")
            if name in seen[:place]:
                raise InputError(f"line {line}: {name} stands twice; leave one of them")
        values = [loader.construct_object(value, deep=True) for _, value in node.value]
        return dict(zip(seen, values, strict=True))

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise InputError(f"{where}this is no YAML ({getattr(error, 'problem', None) or error}); mend it") from None


def changed(deployment: Deployment, path: str, value: object) -> Deployment:
    """The configuration with the key at `path`, such as `cache.reuse_prefix`, set to another value."""
    first, _, rest = path.partition(".")
    return replace(deployment, **{first: changed(getattr(deployment, first), rest, value) if rest else value})


def experiment(deployment: Deployment, workload: Workload, fleet: Fleet | None = None, **options: object) -> Experiment:
    """The experiment that a configuration describes, on a workload.

    The fleet starts with the least number of workers of each role, its router is `split_policy`, its admission
    `early_rejection` and its scaler `thresholds`. What a configuration does not say (hardware, tensor parallelism, the
    limits of a step) is that of `fleet`, by default H100s in groups of `least_tp`. `options` are further
    fields of `Experiment`, such as the SLO and the seed. Without `reuse_prefix` the prompts lose what they
    share, so that no worker finds any part of one in its cache.
    """
    pools, qos = deployment.autoscale, deployment.qos
    first, last = pools.prefill.min_replicas, pools.decode.min_replicas
    given = fleet or Fleet(deployment.model, tp=least_tp(deployment.model))
    cache = {**asdict(deployment.split_policy), **asdict(deployment.cache)}
    patience = {name: value for name, value in asdict(qos).items() if name != "enable_early_rejection"}
    return Experiment(
        workload if deployment.cache.reuse_prefix else workload.without_prefixes(),
        replace(given, model=deployment.model, workers=first + last, split=f"{first}P{last}D"),
        "split_policy",
        "early_rejection" if qos.enable_early_rejection else "none",
        router_parameters=cache,
        admission_parameters=patience if qos.enable_early_rejection else {},
        scaler="thresholds",
        scaler_parameters=_thresholds(deployment),
        **options,
    )


def _thresholds(deployment: Deployment) -> dict[str, object]:
    """The parameters of the scaler; per cent become shares."""
    prefill, decode = deployment.autoscale.prefill, deployment.autoscale.decode
    return {
        "prefill_min": prefill.min_replicas,
        "prefill_max": prefill.max_replicas,
        "prefill_queue_up": prefill.scale_up.queue_length,
        "prefill_queue_down": prefill.scale_down.queue_length,
        "utilisation_up": prefill.scale_up.gpu_utilization / 100,
        "utilisation_down": prefill.scale_down.gpu_utilization / 100,
        "decode_min": decode.min_replicas,
        "decode_max": decode.max_replicas,
        "decode_queue_up": decode.scale_up.queue_length,
        "decode_queue_down": decode.scale_down.queue_length,
        "kv_up": decode.scale_up.kv_cache_usage / 100,
        "kv_down": decode.scale_down.kv_cache_usage / 100,
    }


def least_tp(model: str, hardware: str = "h100") -> int:
    """The least power of two of GPUs that leaves a worker as much memory for KV as its weights take.

    A rule of thumb of this course: with less, a large model fits and has no room for a batch. Raises `InputError`
    when even the most does not do.
    """
    model_of(model)
    for tp in (1, 2, 4, 8, 16, 32, MOST_GPUS):
        fleet = Fleet(model, hardware, 1, tp=tp)
        try:
            if fleet.kv_bytes() * tp >= fleet.served_model.weight_bytes():
                return tp
        except InputError:
            continue  # the weights alone do not fit
    raise InputError(f"{model} leaves little memory on {MOST_GPUS} x {hardware}; say how many with tp")
