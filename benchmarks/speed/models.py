"""Model folders for the benchmarks: random weights, real shapes. Speed does not depend on what the weights say."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    if (target / "config.json").exists():
        return target
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_map_with_path
    from mlx_lm.utils import quantize_model

    settings: dict[str, Any] = {
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32768,
        "eos_token_id": 258,
        **SHAPES[name],
    }
    module = importlib.import_module(f"mlx_lm.models.{settings['model_type']}")
    model = module.Model(module.ModelArgs.from_dict(settings))

    def value(path: str, old: mx.array) -> mx.array:
        if path.endswith("norm.weight"):
            return mx.ones(old.shape)
        key = mx.random.key(sum(map(ord, path)) + 7919 * len(path))
        return 0.02 * mx.random.normal(old.shape, key=key)

    model.update(tree_map_with_path(value, model.parameters()))
    group = 32 if int(settings["hidden_size"]) % 64 else 64
    model, settings = quantize_model(model, settings, group, 4)
    partial = root / f".{name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    mx.save_safetensors(str(partial / "model.safetensors"), dict(tree_flatten(model.parameters())), {"format": "mlx"})
    (partial / "config.json").write_text(json.dumps(settings, indent=1))
    _tokenizer(partial)
    partial.rename(target)
    return target


def _tokenizer(target: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = (
        "{% for m in messages %}<|im_start|>{{m.role}}\n{{m.content}}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    fast.save_pretrained(target)


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
