"""A model folder with random weights and a real shape: how quick it is does not depend on what its weights say."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Eight of the 36 blocks of Qwen2.5-3B and its whole vocabulary: every product has its real size, in 0.5 GB of 4 bits.
BLOCKS_OF_3B: Mapping[str, Any] = {
    "model_type": "qwen2", "hidden_size": 2048, "num_hidden_layers": 8, "intermediate_size": 11008,
    "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151936, "rope_theta": 1e6,
    "tie_word_embeddings": True,
}  # fmt: skip


def write_random_model(settings: Mapping[str, Any], target: Path) -> Path:
    """Write a 4-bit model of that shape as a folder that every program loads; one that is there already is kept."""
    if (target / "config.json").exists():
        return target
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_map_with_path
    from mlx_lm.utils import quantize_model

    words = {"rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "eos_token_id": 258, **settings}
    module = importlib.import_module(f"mlx_lm.models.{words['model_type']}")
    model = module.Model(module.ModelArgs.from_dict(words))

    def value(path: str, old: mx.array) -> mx.array:
        if path.endswith("norm.weight"):
            return mx.ones(old.shape)
        key = mx.random.key(sum(map(ord, path)) + 7919 * len(path))
        return 0.02 * mx.random.normal(old.shape, key=key)

    model.update(tree_map_with_path(value, model.parameters()))
    group = 32 if words["hidden_size"] % 64 else 64
    model, words = quantize_model(model, words, group, 4)
    partial = target.with_name(f".{target.name}.new")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    mx.save_safetensors(str(partial / "model.safetensors"), dict(tree_flatten(model.parameters())), {"format": "mlx"})
    (partial / "config.json").write_text(json.dumps(words, indent=1))
    _write_tokenizer(partial)
    partial.rename(target)
    return target


def _write_tokenizer(target: Path) -> None:
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
