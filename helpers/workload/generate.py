"""Workloads by name: generated, shipped with the course, fetched, or read from a file."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from itertools import islice
from operator import attrgetter
from pathlib import Path

from helpers.errors import InputError
from helpers.paths import data_file
from helpers.workload.generators import GENERATORS, Generator, Seeds
from helpers.workload.request import Request, Workload
from helpers.workload.traces import SKIP_HINT, LoadReport, load

HOUR_S = 3600.0
WANTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a length such as lognormal:800:0.5"}
GENERATED = "generated:"
# What follows id and arrival of a request. `dataclasses.replace` takes twice as long, which a page that draws anew at
# every touch of a slider would feel.
_REST = attrgetter(*(f.name for f in fields(Request)[2:]))
# Generated once and shipped, so that a page shows the same wherever it is built. Seeds: data/traces/README.md.
SHIPPED = {"conversation": "conversation.jsonl.gz", "code": "code.csv.gz", "chat": "chat.csv.gz"}


def open_workload(
    name: str | Path,
    *,
    rate_per_s: float | None = None,
    requests: int | None = None,
    duration_s: float | None = None,
    seed: int = 0,
    knobs: dict[str, object] | None = None,
    format: str = "auto",
    skip_bad: bool = False,
    max_context: int | None = None,
    max_requests: int | None = None,
    block_tokens: int = 512,
) -> tuple[Workload, LoadReport]:
    """A workload by name or path, looked up in this order.

    `generated:NAME` is a generator; then the shipped traces (`conversation`, `code`, `chat`), the
    generators by bare name, the public traces fetched before (`mooncake_conversation`, ...), and last
    a file path. Rate, requests, duration and knobs belong to generators and are refused elsewhere;
    a recorded trace is the same for every seed. The rest is as in `traces.load`.
    """
    text = str(name)
    plain = text.removeprefix(GENERATED)
    if text.startswith(GENERATED) or (text in GENERATORS and text not in SHIPPED):
        if max_requests is not None:
            requests = max_requests if requests is None else min(requests, max_requests)
        made = generate(
            plain,
            rate_per_s=rate_per_s,
            requests=requests,
            duration_s=duration_s,
            seed=seed,
            block_tokens=block_tokens,
            **(knobs or {}),
        )
        return _within_context(made, max_context, skip_bad)
    told = {"rate_per_s": rate_per_s, "requests": requests, "duration_s": duration_s, **(knobs or {})}
    given = [key for key, value in told.items() if value is not None]
    if given:
        raise InputError(f"{text} is a recorded trace: {', '.join(given)} belong to generators ({GENERATED}NAME)")
    return load(_trace_path(text), format, skip_bad, max_context, max_requests, block_tokens)


def _trace_path(name: str) -> Path:
    if name in SHIPPED:
        return data_file("traces", SHIPPED[name])
    from helpers.workload.fetch import SOURCES, fetched

    if name in SOURCES:
        path = fetched(name)
        if path is None:
            raise InputError(f"the trace {name} was not fetched yet: hybrid-serving trace fetch {name}")
        return path
    path = Path(name)
    if not path.exists() and not path.suffix:
        known = ", ".join(dict.fromkeys([*SHIPPED, *GENERATORS, *SOURCES]))
        raise InputError(f"{name!r} is no file and no workload; use a path or one of {known}")
    return path


def _within_context(made: Workload, max_context: int | None, skip_bad: bool) -> tuple[Workload, LoadReport]:
    """Hold a generated workload to a model's context, as `load` does a recorded one."""
    kept, lost = [], set()
    for r in made:
        if (max_context is not None and r.prompt_tokens + r.output_tokens > max_context) or r.parent in lost:
            if not skip_bad:
                raise InputError(
                    f"{made.source}: request {r.id} has prompt + output of {r.prompt_tokens + r.output_tokens} tokens, "
                    f"the context is {max_context}; {SKIP_HINT}"
                )
            lost.add(r.id)
        else:
            kept.append(r)
    if not kept:
        raise InputError(f"{made.source}: no request fits a context of {max_context} tokens")
    skipped = ((f"prompt + output exceed the context of {max_context} tokens", len(lost)),) if lost else ()
    report = LoadReport(made.name, made.source.partition(" ")[0], len(made), len(kept), skipped)
    if lost:
        repair = f"{len(lost)} of {len(made)} rows skipped"
        made = replace(made, requests=tuple(kept), repairs=(*made.repairs, repair))
    return made, report


def stream(
    name: str,
    *,
    rate_per_s: float | None = None,
    requests: int | None = None,
    duration_s: float | None = None,
    seed: int = 0,
    block_tokens: int = 512,
    **knobs: object,
) -> Iterator[Request]:
    """The requests of a generator one at a time, in order of arrival; memory does not grow with their number.

    Stops after `requests` or before `duration_s`, whichever comes first; after an hour when neither is given.
    Raises `InputError` for an unknown name or knob and for values out of range.
    """
    maker = _generator(name)
    rate = maker.rate_per_s if rate_per_s is None else rate_per_s
    for label, value in (("rate_per_s", rate), ("requests", requests), ("duration_s", duration_s)):
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"generator {name}: {label} is {value}; give a finite number above 0")
    if requests is not None and type(requests) is not int:
        raise InputError(f"generator {name}: requests is {requests}; give a whole number")
    if requests is None and duration_s is None:
        duration_s = HOUR_S
    made = maker.make(Seeds(name, seed), rate, block_tokens, settings(name, knobs))
    end = math.inf if duration_s is None else duration_s
    return islice(_before(made, end), requests)


def generate(
    name: str,
    *,
    rate_per_s: float | None = None,
    requests: int | None = None,
    duration_s: float | None = None,
    seed: int = 0,
    block_tokens: int = 512,
    exact_rate: bool = False,
    **knobs: object,
) -> Workload:
    """A workload from a named generator, see `stream`.

    With `exact_rate`, arrivals are rescaled so that the last of N comes at N/rate: the offered rate
    is then exact for bursty draws too, and no longer varies between seeds.
    """
    rate = _generator(name).rate_per_s if rate_per_s is None else rate_per_s
    made = tuple(
        stream(
            name,
            rate_per_s=rate,
            requests=requests,
            duration_s=duration_s,
            seed=seed,
            block_tokens=block_tokens,
            **knobs,
        )
    )
    if not made:
        raise InputError(f"generator {name}: no request arrives within {duration_s} s at {rate} req/s; ask for longer")
    if exact_rate and made[-1].arrival_s > 0:
        stretch = len(made) / rate / made[-1].arrival_s
        made = tuple(Request(r.id, r.arrival_s * stretch, *_REST(r)) for r in made)
    told = {"rate_per_s": rate, "requests": requests, "duration_s": duration_s, "seed": seed, **knobs}
    if exact_rate:
        told["exact_rate"] = True
    source = ", ".join(f"{key}={value}" for key, value in told.items() if value is not None)
    return Workload(name, made, block_tokens, f"generated:{name} ({source})")


def knobs_of(pairs: Iterable[str]) -> dict[str, object]:
    """The knobs written as `NAME=VALUE` on a command line; raises `InputError` for one written twice or otherwise."""
    knobs: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key or key in knobs:
            raise InputError(f"--knob {pair!r}: write each knob once, as NAME=VALUE")
        knobs[key] = value
    taken = {"rate_per_s", "requests", "duration_s", "seed", "block_tokens", "exact_rate"} & knobs.keys()
    if taken:
        raise InputError(
            f"--knob {min(taken)}: this is no knob; rate, number, seed and blocks are options of the command"
        )
    return knobs


def settings(name: str, knobs: dict[str, object]) -> object:
    """The knobs of a generator as its dataclass; text (from the command line) becomes the knob's own type."""
    known = {f.name: f.type for f in fields(_generator(name).knobs)}
    chosen = {}
    for key, value in knobs.items():
        if key not in known:
            raise InputError(f"generator {name} has no knob {key!r}; it has {', '.join(known) or 'none'}")
        chosen[key] = _as(known[key], key, value)
    return _generator(name).knobs(**chosen)


def _as(kind: type, key: str, value: object) -> object:
    """A knob's value in its own type: nothing is rounded, and only text is parsed."""
    if isinstance(value, str) and kind is not str:
        try:
            value = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        except (KeyError, ValueError):
            raise InputError(f"knob {key} is {value!r}; give {WANTED[kind]}") from None
    elif type(value) is int and kind in (float, str):
        value = kind(value)
    if type(value) is not kind or (kind is float and math.isnan(value)):
        raise InputError(f"knob {key} is {value!r}; give {WANTED[kind]}")
    return value


def _generator(name: str) -> Generator:
    if name not in GENERATORS:
        raise InputError(f"there is no generator {name!r}; use {', '.join(GENERATORS)}")
    return GENERATORS[name]


def _before(made: Iterator[Request], end: float) -> Iterator[Request]:
    for r in made:
        if r.arrival_s >= end:
            return
        yield r
