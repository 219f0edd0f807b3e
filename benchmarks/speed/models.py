"""Model folders for the benchmarks: random weights, real shapes. Speed does not depend on what the weights say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from azr_mlx.bench.random_model import write_random_model

SHAPES = {
    # The shape of the embedded model: small enough that everything but matmuls shows.
    "nano": {
        "model_type": "qwen3", "hidden_size": 160, "num_hidden_layers": 6, "intermediate_size": 480,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 40, "vocab_size": 512, "rope_theta": 1e4,
        "tie_word_embeddings": True,
    },
    # Qwen2.5-0.5B with its real vocabulary.
    "qwen2.5-0.5b": {
        "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "intermediate_size": 4864,
        "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936, "rope_theta": 1e6,
        "tie_word_embeddings": True,
    },
    # The same width and vocabulary, two blocks: what the head costs, in little time.
    "qwen2.5-0.5b-2-layers": {
        "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 2, "intermediate_size": 4864,
        "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936, "rope_theta": 1e6,
        "tie_word_embeddings": True,
    },
}  # fmt: skip


def folder(name: str, root: Path) -> Path:
    """A model folder: an existing one by path, or one of SHAPES, written under `root` on first use.

    Weights are float32 on a 4-bit grid's scale and quantized, so that every program loads what it would load in life.
    """
    if Path(name).is_dir():
        return Path(name)
    target = root / name
    return write_random_model(SHAPES[name], target)


@contextmanager
def unfitted() -> Iterator[None]:
    """Within it models are loaded as mlx_lm wrote them and exponentials are MLX's: cpu_kernels.py does nothing."""
    from azr_mlx.model import cpu_kernels

    before = cpu_kernels.slow_exponential
    cpu_kernels.slow_exponential = lambda: False
    try:
        yield
    finally:
        cpu_kernels.slow_exponential = before


def load_pair(folder: str, *parts: Any) -> tuple[Any, Any]:
    """Two policies on one model: ours, and an unfitted one for the other engines."""
    from azr_mlx import config
    from azr_mlx.model.policy import Policy

    model = config.ModelConfig(id=folder, style="compact")
    with unfitted():
        theirs = Policy.load(model, *parts)
    return Policy.load(model, *parts), theirs
