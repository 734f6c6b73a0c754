"""What the endpoint counts, in the text format of Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from helpers.cluster.api.gateway import Gateway

TTFT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
TPOT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
E2E_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
PREFIX = "hybrid_serving"


class Metrics:
    """Counters and histograms over requests, gauges of the workers at the moment of the question."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(f"{PREFIX}_requests", "Requests that are over", ["status"], registry=registry)
        self.prompt = Counter(f"{PREFIX}_prompt_tokens", "Tokens of prompts that were served", registry=registry)
        self.cached = Counter(f"{PREFIX}_cached_tokens", "Of these, found in a prefix cache", registry=registry)
        self.generated = Counter(f"{PREFIX}_generation_tokens", "Tokens that were generated", registry=registry)
        self.ttft = Histogram(
            f"{PREFIX}_time_to_first_token_seconds", "TTFT, from the request", buckets=TTFT_S, registry=registry
        )
        self.tpot = Histogram(
            f"{PREFIX}_time_per_output_token_seconds",
            "TPOT of a request, its first token left out",
            buckets=TPOT_S,
            registry=registry,
        )
        self.e2e = Histogram(f"{PREFIX}_e2e_seconds", "From the request to its end", buckets=E2E_S, registry=registry)
        self.inside = Gauge(f"{PREFIX}_requests_inside", "Requests that are being served or wait", registry=registry)
        of_worker = {
            "alive": "Whether the worker is there",
            "running": "Requests that run on it",
            "waiting": "Requests that wait on it",
            "waiting_tokens": "Prompt tokens that are still to be computed",
            "kv_used_share": "Share of its KV blocks in use",
        }
        self.workers = {
            name: Gauge(f"{PREFIX}_worker_{name}", about, ["worker", "role"], registry=registry)
            for name, about in of_worker.items()
        }

    def ended(self, status: str, prompt: int, cached: int, times_s: list[float], asked_s: float, now_s: float) -> None:
        """A request is over; `times_s` are those of its tokens."""
        self.requests.labels(status).inc()
        self.generated.inc(len(times_s))
        self.e2e.observe(now_s - asked_s)
        if times_s:
            self.prompt.inc(prompt)
            self.cached.inc(cached)
            self.ttft.observe(times_s[0] - asked_s)
        if len(times_s) > 1:
            self.tpot.observe((times_s[-1] - times_s[0]) / (len(times_s) - 1))

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        self.inside.set(self._gateway.inside)
        for view, alive in zip(self._gateway.views(), self._gateway.alive(), strict=True):
            share = view.kv_used_blocks / view.kv_total_blocks
            values = {"alive": alive, "running": view.running, "waiting": view.waiting}
            values |= {"waiting_tokens": view.waiting_tokens, "kv_used_share": share}
            for name, value in values.items():
                self.workers[name].labels(str(view.worker), view.role).set(value)
        return generate_latest(self.registry)
