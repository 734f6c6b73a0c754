"""The configuration: what ships is read whole, and whatever is wrong is named with its path."""

import re
from pathlib import Path

import pytest
import yaml

from helpers.errors import InputError
from helpers.serving.config import changed, read_config
from helpers.serving.config_schema import leaves

SHIPPED = Path(__file__).resolve().parent.parent.parent / "data" / "dynamo_config.yaml"
TEXT = SHIPPED.read_text(encoding="utf-8")

# Every value that ships, typed here a second time.
VALUES = {
    "model": "llama-3.1-70b",
    "split_policy.prompt_length_threshold": 256,
    "split_policy.prefix_cache_weight": 10.0,
    "split_policy.queue_length_weight": 1.5,
    "split_policy.decode_load_weight": 0.5,
    "split_policy.enable_hotspot_prevention": True,
    "cache.reuse_prefix": True,
    "cache.min_cache_hit_ratio": 0.75,
    "autoscale.prefill.min_replicas": 4,
    "autoscale.prefill.max_replicas": 12,
    "autoscale.prefill.scale_up.queue_length": 8,
    "autoscale.prefill.scale_up.gpu_utilization": 80,
    "autoscale.prefill.scale_down.queue_length": 2,
    "autoscale.prefill.scale_down.gpu_utilization": 40,
    "autoscale.decode.min_replicas": 8,
    "autoscale.decode.max_replicas": 24,
    "autoscale.decode.scale_up.queue_length": 16,
    "autoscale.decode.scale_up.kv_cache_usage": 75,
    "autoscale.decode.scale_down.queue_length": 4,
    "autoscale.decode.scale_down.kv_cache_usage": 30,
    "qos.enable_early_rejection": True,
    "qos.low_priority_threshold_ms": 500,
    "qos.reject_on_slo_violation": True,
}


def value_at(group, path: str):
    """The value of a key, in the dataclasses or in plain mappings."""
    for name in path.split("."):
        group = group[name] if isinstance(group, dict) else getattr(group, name)
    return group


def edited(path: str, value) -> str:
    """The shipped text with the key at `path` set to another value, or left out (`...`), as YAML."""
    plain = yaml.safe_load(TEXT)
    above, _, name = path.rpartition(".")
    group = value_at(plain, above) if above else plain
    if value is ...:
        del group[name]
    else:
        group[name] = value
    return yaml.safe_dump(plain)


def refused(tmp_path, text: str, sentence: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_config(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert sentence in str(error.value)


def test_every_key_that_ships_is_read_with_its_value():
    deployment = read_config(SHIPPED)
    assert {path: value_at(deployment, path) for path in leaves()} == VALUES
    assert len(VALUES) == 23


@pytest.mark.parametrize("path", VALUES)
def test_every_key_is_needed(path, tmp_path):
    refused(tmp_path, edited(path, ...), f"{path} is missing; every key must be given")


@pytest.mark.parametrize("path", VALUES)
def test_every_key_has_a_type(path, tmp_path):
    """A list fits nowhere; a text fits no number, and 1 is neither true nor false."""
    refused(tmp_path, edited(path, [1]), f"{path} is a list; give ")
    wrong = 1 if isinstance(VALUES[path], bool) else 3.5 if isinstance(VALUES[path], str) else "8"
    refused(tmp_path, edited(path, wrong), f"{path} is {wrong!r}; give ")
    if not isinstance(VALUES[path], bool):
        refused(tmp_path, edited(path, True), f"{path} is True; give ")


@pytest.mark.parametrize("path", [path for path, value in VALUES.items() if type(value) in (int, float)])
def test_every_number_has_a_range(path, tmp_path):
    refused(tmp_path, edited(path, -1), f"{path} is -1; give ")
    if path not in ("autoscale.prefill.min_replicas", "split_policy.prompt_length_threshold"):
        refused(tmp_path, edited(path, float("nan")), f"{path} is nan; give ")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("autoscale.prefill.scale_up.queue_lenght", "did you mean queue_length?"),
        ("autoscale.decode.scale_up.gpu_utilization", "the keys there are queue_length, kv_cache_usage"),
        ("split_policy.prefix_weight", "did you mean prefix_cache_weight?"),
        ("cache.reuse", "did you mean reuse_prefix?"),
        ("qos.x", "the keys there are enable_early_rejection, low_priority_threshold_ms"),
        ("models", "did you mean model?"),
    ],
)
def test_an_unknown_key_is_named_with_its_path(typed, meant, tmp_path):
    refused(tmp_path, edited(typed, 1), f"{typed} is unknown; {meant}")


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("cache.min_cache_hit_ratio", 1.1, "cache.min_cache_hit_ratio is 1.1; give a number from 0 to 1"),
        ("autoscale.decode.scale_up.kv_cache_usage", 101, "kv_cache_usage is 101; give a number from 0 to 100"),
        ("autoscale.prefill.min_replicas", 0, "min_replicas is 0; give a whole number of 1 or more"),
        ("autoscale.prefill.min_replicas", 13, "min_replicas is 13, above max_replicas 12"),
        ("autoscale.decode.max_replicas", 7, "autoscale.decode.min_replicas is 8, above max_replicas 7"),
        ("autoscale.decode.scale_down.queue_length", 16, "scale_down.queue_length is 16, not below that of scale_up"),
        ("autoscale.prefill.scale_up.gpu_utilization", 40, "scale_down.gpu_utilization is 40, not below"),
        ("qos.low_priority_threshold_ms", 0, "low_priority_threshold_ms is 0; give a number"),
        ("model", "llama-70b", "unknown model 'llama-70b'"),
        ("autoscale.prefill", 4, "autoscale.prefill is 4; give it the keys min_replicas, max_replicas"),
        ("qos", None, "qos is empty; give it the keys"),
    ],
)
def test_what_cannot_be_is_refused(path, value, sentence, tmp_path):
    refused(tmp_path, edited(path, value), sentence)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the configuration is empty; give it the keys model, split_policy"),
        ("- model\n", "the configuration is a list"),
        ("model: [\n", "this is no YAML"),
        ("model: a\nmodel: b\n", "line 2: model stands twice"),
        ("cache: {reuse_prefix: true, reuse_prefix: false}\n", "reuse_prefix stands twice"),
        ("on: 1\n", "line 1: a key is True; give a name"),
        ("? [1]\n: 2\n", "a key is a list; give a name"),
        ("model: !!python/object/apply:os.getcwd []\n", "this is no YAML"),
        ("&a {model: *a}\n", "this is no YAML"),
        ("[" * 3000, "this is no YAML"),
    ],
)
def test_what_is_no_configuration_is_refused(text, sentence, tmp_path):
    refused(tmp_path, text, sentence)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'none.yaml'}: there is no such file")):
        read_config(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        read_config(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_config(tmp_path / "bytes.yaml")


def test_the_checks_can_fail(tmp_path):
    """The control: the shipped text written anew passes, also with whole numbers where numbers are wanted."""
    path = tmp_path / "config.yaml"
    path.write_text(edited("split_policy.prefix_cache_weight", 10), encoding="utf-8")
    assert read_config(path) == read_config(SHIPPED)
    path.write_text(edited("qos.low_priority_threshold_ms", 501), encoding="utf-8")
    assert read_config(path) == changed(read_config(SHIPPED), "qos.low_priority_threshold_ms", 501.0)
    assert read_config(path) != read_config(SHIPPED)
