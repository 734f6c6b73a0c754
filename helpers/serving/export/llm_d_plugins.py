"""The plugins of llm-d's endpoint picker that an export names; types and parameters as in their READMEs."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Plugin:
    """A plugin: its type and parameters, and whether the profiles name it, with which weight."""

    type: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    weight: float | None = None
    listed: bool = True

    def declared(self) -> dict:
        """Its entry among the plugins."""
        return {"type": self.type, **({"parameters": dict(self.parameters)} if self.parameters else {})}

    def named(self) -> dict:
        """Its entry in a profile."""
        return {"pluginRef": self.type, **({} if self.weight is None else {"weight": self.weight})}


BEST = Plugin("max-score-picker")
DRAWN = Plugin("random-picker")
IN_FLIGHT = Plugin("inflight-load-producer", listed=False)
PRECISE = (
    Plugin("token-producer", {"modelName": "$MODEL", "vllm": {"url": "$TOKENIZER_URL"}}, listed=False),
    Plugin("endpoint-notification-source", listed=False),
    Plugin("metrics-data-source", listed=False),
    Plugin("core-metrics-extractor", listed=False),
    Plugin("precise-prefix-cache-producer", listed=False),
)
PREFIX = {"prefixMatchInfoProducerName": "precise-prefix-cache-producer"}
DATA_LAYER = {
    "sources": [
        {"pluginRef": "metrics-data-source", "extractors": [{"pluginRef": "core-metrics-extractor"}]},
        {"pluginRef": "endpoint-notification-source", "extractors": [{"pluginRef": "precise-prefix-cache-producer"}]},
    ]
}
