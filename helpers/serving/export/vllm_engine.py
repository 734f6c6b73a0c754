"""Flags of a vLLM engine that follow from a fleet: Dynamo, llm-d and vLLM itself start the same one."""

from helpers.serving.fleet import Fleet

# vllm-project/vllm docs/features/nixl_connector_usage.md at 026c83f9: roles are decided by who routes.
NIXL = {"--kv-transfer-config": '\'{"kv_connector":"NixlConnector","kv_role":"kv_both"}\''}
SPLIT_NOTE = ("each worker of a host needs its own VLLM_NIXL_SIDE_CHANNEL_PORT, and ports of its own",)


def engine_flags(fleet: Fleet) -> dict[str, object]:
    """Parallelism and the limits of a step."""
    return {
        "--tensor-parallel-size": fleet.tp,
        "--max-num-batched-tokens": fleet.chunk_tokens,
        "--max-num-seqs": fleet.max_batch,
    }
