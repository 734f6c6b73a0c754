"""What the front end tells a worker: what it is (once), what it plays in a run, and what it is to serve."""

from dataclasses import asdict, dataclass, field

from helpers.cluster.messages import Message, request_of_values, request_values
from helpers.workload.request import Request


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What a worker process is started with: its place among its peers, its model and its memory."""

    index: int
    workers: int
    folder: str  # where its shared memory is, and its sockets are where they are no ports
    model: str
    device: str
    dtype: str | None
    block_tokens: int
    token_budget: int
    max_batch: int
    kv_gib: float
    stage_bytes: int
    beat_s: float  # an idle worker says so often that it is there
    front: str  # the address of the front end
    host: str = ""  # at which its ports are, where sockets are ports


@dataclass(frozen=True, slots=True)
class Part:
    """What a worker plays in one run."""

    role: str
    mover: str = "layerwise"
    telemetry_s: float = 0.0  # seconds between two samples; 0: with every step and every arrival
    verify: bool = False  # check each page that arrives against its digest
    keep_logits: bool = False
    transfer_limit_s: float = 30.0
    link_bytes_per_s: float = 0.0  # 0: as fast as memory is copied
    link_latency_s: float = 0.0
    tamper: str = ""  # what to do wrong on purpose with KV that arrives, see helpers.cluster.tamper
    pairs: tuple[tuple[int, int], ...] = ()  # (sender, receiver) of the groups of two that the mover needs
    meeting_place: str = ""  # the address at which those groups find each other
    send_after: tuple[int, ...] = ()  # layer i may go once so many are stored; empty: each as soon as it is stored
    run: int = 0  # the how manieth of these workers: what peers say of an earlier one is not heard

    def message(self) -> Message:
        """As it is sent."""
        return {"kind": "begin", **asdict(self)}

    @classmethod
    def of(cls, message: Message) -> "Part":
        """As it is received."""
        fields = {name: message[name] for name in cls.__dataclass_fields__}
        pairs, send_after = tuple(map(tuple, message["pairs"])), tuple(message["send_after"])
        return cls(**{**fields, "pairs": pairs, "send_after": send_after})


@dataclass(slots=True)
class Order:
    """A request on its way to a worker: `out` are the tokens that are out already, from a worker that was lost.

    `number` is its place in the order of the front end. `prompt` None: synthetic, drawn from the hashes of the request.
    `decode` is the worker that decodes. `sampling` is (temperature, top_p, top_k, seed).
    """

    ticket: int
    number: int
    request: Request
    decode: int
    prompt: list[int] | None = None
    out: list[int] = field(default_factory=list)
    sampling: tuple[float, float, int, int] = (0.0, 1.0, 0, 0)
    stop: tuple[int, ...] = ()

    def message(self, kind: str = "submit") -> Message:
        """As it is sent."""
        return {
            "kind": kind, "ticket": self.ticket, "number": self.number, "request": request_values(self.request),
            "decode": self.decode, "prompt": self.prompt, "out": self.out, "sampling": list(self.sampling),
            "stop": list(self.stop),
        }  # fmt: skip

    @classmethod
    def of(cls, message: Message) -> "Order":
        """As it is received."""
        return cls(
            message["ticket"], message["number"], request_of_values(message["request"]), message["decode"],
            message["prompt"], message["out"], tuple(message["sampling"]), tuple(message["stop"]),
        )  # fmt: skip
