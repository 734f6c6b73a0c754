"""`hybrid-serving serve`: a live cluster behind the HTTP interface that clients and load generators know."""

import ipaddress
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from helpers.errors import InputError
from helpers.hardware import hardware_key, probe, probe_cpu
from helpers.policies.facts import Facts
from helpers.serving.arms import settings
from helpers.serving.calibrated import note_for_policies, served
from helpers.serving.cluster_backend import DEPENDENCIES, ClusterOptions, parts_of, workers_for
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet, parse_split
from helpers.serving.simulate import slo_of
from helpers.workload.request import Workload

Option = typer.Option
BLOCK_TOKENS = 64
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def register(app: typer.Typer) -> None:
    """Add the command `serve`."""
    app.command("serve")(serve)


def serve(
    model: Annotated[str, Option(help="a preset, a model that ships (book-dense, book-moe), or a folder")] = "tiny",
    workers: Annotated[int | None, Option(help="how many workers (default 1, or what --split says)")] = None,
    split: Annotated[str | None, Option(help="prefill and decode workers, such as 1P1D")] = None,
    mover: Annotated[str, Option(help="how KV is handed over: blocking, layerwise, batched, bounce, group")] = "",
    router: Annotated[str, Option(help="a router, see `hybrid-serving policies`")] = "prefix_exact",
    router_set: Annotated[list[str] | None, Option(help="KEY=VALUE for the router")] = None,
    admission: Annotated[str, Option(help="an admission policy")] = "none",
    admission_set: Annotated[list[str] | None, Option(help="KEY=VALUE for the admission policy")] = None,
    slo_ttft: Annotated[float, Option(help="the TTFT bound in seconds, for policies that keep one")] = 2.0,
    slo_tpot: Annotated[float, Option(help="the TPOT bound in seconds")] = 0.05,
    cost: Annotated[
        Path | None, Option(help="what steps take here, for policies that predict: a record of calibrate or of record")
    ] = None,
    cost_steps: Annotated[
        str | None, Option(help="the steps it was fitted to, served or designed (default: served, if recorded)")
    ] = None,
    device: Annotated[str, Option(help="auto, cpu or cuda")] = "auto",
    chunk_tokens: Annotated[int, Option(help="the token budget of a step")] = 512,
    max_batch: Annotated[int, Option(help="the most sequences that run at once on a worker")] = 64,
    kv_gib: Annotated[float | None, Option(help="KV memory a worker in GiB")] = None,
    host: Annotated[str, Option(help="the address to listen on")] = "127.0.0.1",
    port: Annotated[int, Option(help="the port to listen on")] = 8000,
    api_key: Annotated[
        str | None, Option(envvar="HYBRID_SERVING_API_KEY", help="ask clients for this key (better: the variable)")
    ] = None,
    most_tokens: Annotated[int, Option(help="the most tokens that a request may generate")] = 4096,
    most_body: Annotated[int, Option(help="the most bytes of a request's body")] = 2**20,
    most_requests: Annotated[int, Option(help="the most requests that are served or wait at once")] = 512,
) -> None:
    """Serve a model over HTTP: completions, chat, streaming, metrics. Stop it with an interrupt.

    Under torchrun each rank holds a worker, on the GPU of its own.
    """
    check_address(host, port, api_key)
    if mover and not split:
        raise InputError(
            f"serve: --mover {mover} says how KV leaves a prefill worker; give --split too, or leave it out"
        )
    if min(most_tokens, most_body, most_requests) < 1:
        raise InputError("serve: --most-tokens, --most-body and --most-requests are 1 or more")
    try:
        from helpers.cluster.api.app import Endpoint
        from helpers.cluster.api.gateway import Gateway, Hints
        from helpers.cluster.api.server import door, listen
        from helpers.cluster.live import LiveCluster
        from helpers.engine.load import device_of
        from helpers.engine.tokenizer import tokenizer_for
    except ModuleNotFoundError as error:
        raise InputError(DEPENDENCIES.format(error.name)) from None

    count = workers if workers is not None else len(parse_split(split)) if split else 1
    fleet = Fleet(workers=count, split=split, chunk_tokens=chunk_tokens, max_batch=max_batch, kv_gib=kv_gib)
    fleet, told = served(fleet, cost, cost_steps, Path(model).name)
    if told:
        here = hardware_key(probe_cpu() if device_of(device).type == "cpu" else probe())
        print(f"hybrid-serving: {note_for_policies(told, here)}", file=sys.stderr)
    options = ClusterOptions(model=model, device=device, mover=mover)
    question = Experiment(
        Workload("clients", (), BLOCK_TOKENS),
        fleet,
        router,
        admission,
        slo_of(slo_ttft, slo_tpot),
        router_parameters=settings("router", (router,), router_set or ())[router],
        admission_parameters=settings("admission", (admission,), admission_set or ())[admission],
    )
    known = facts_of(question)
    at = door(host, port)
    with workers_for(fleet, BLOCK_TOKENS, options) as crew:
        facts = replace(known, kv_blocks=crew.limits.kv_blocks)
        parts = parts_of(question, options)
        routers, admissions = question.make_routers(facts), question.make_admissions(facts)
        hints = Hints()
        cluster = LiveCluster(crew, parts, routers, admissions, on_decision=hints.note, record=False)
        gateway = Gateway(cluster, most_requests, hints)
        names = () if api_key else (host, *LOOPBACK)
        endpoint = Endpoint(gateway, tokenizer_for(model), model, api_key, most_body, most_tokens, names)
        started = f"{count} worker{'s' * (count > 1)} started in {crew.startup_s:.1f} s"
        address = f"http://{f'[{host}]' if ':' in host else host}:{at.getsockname()[1]}/v1"
        print(f"hybrid-serving: {started}; {model} at {address}", file=sys.stderr, flush=True)
        listen(endpoint.application(), at)


def facts_of(question: Experiment) -> Facts:
    """What the policies are told. Raises `InputError` for one that predicts while nobody has said what a step costs
    here: the data sheet of some GPU says nothing of the model and the device that serve."""
    facts = question.facts()
    if question.fleet.cost is not None:
        return facts
    facts = replace(facts, predictor=None)
    try:
        question.make_routers(facts), question.make_admissions(facts)
    except InputError as error:
        what, _, wanted = str(error).partition("; give it ")
        other = "" if wanted.startswith("a predictor") else f", or {wanted.removeprefix('one, or ')}"
        made = "made here by `hybrid-serving calibrate --json FILE`"
        raise InputError(f"{what}; give --cost FILE, {made}{other}") from None
    return facts


def check_address(host: str, port: int, api_key: str | None) -> None:
    """Raise `InputError` for an address that cannot be, or that others can reach without a key."""
    if not 0 <= port < 65536:
        raise InputError(f"serve: --port is {port}; give 0 to 65535")
    if api_key == "":
        raise InputError("serve: the key is empty; give a long random one, or none")
    if api_key is None and not _is_loopback(host):
        raise InputError(f"serve: others can reach {host}; give a key (HYBRID_SERVING_API_KEY), or keep to 127.0.0.1")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
