"""Tiny random models of the real architectures, with a byte-level tokenizer, written as Hugging Face folders."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from azr_mlx.model import device

device.prepare()

import mlx.core as mx  # noqa: E402
from mlx.utils import tree_flatten, tree_map_with_path  # noqa: E402

from azr_mlx import config  # noqa: E402
from azr_mlx.model.policy import Policy  # noqa: E402
from azr_mlx.types import Kind, Prompt, Role  # noqa: E402

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{m.role}}\n{{m.content}}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def build_model(folder: Path, architecture: str = "qwen3", tied: bool = True, **changes: object) -> Path:
    """A model folder of a few thousand parameters whose next-token distributions are far from uniform."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: i for i, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ("<think>", "</think>")])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    settings = {
        "model_type": architecture, "hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 128,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-6, "vocab_size": 288,
        "rope_theta": 10000.0, "tie_word_embeddings": tied, "max_position_embeddings": 4096,
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "architectures": [f"{architecture.capitalize()}ForCausalLM"], **changes,
    }  # fmt: skip
    module = importlib.import_module(f"mlx_lm.models.{architecture}")
    model = module.Model(module.ModelArgs.from_dict(settings))

    def value(name: str, old: mx.array) -> mx.array:
        key = mx.random.key(sum(map(ord, name)) + 7919 * len(name))
        if name.endswith("model.norm.weight"):
            # Sharper than random weights give: a model that hardly knows what comes next makes near-ties, and where two
            # batches round differently by 1e-6 a near-tie may fall either way.
            return mx.full(old.shape, 3.0)
        if name.endswith("norm.weight"):
            return mx.ones(old.shape)
        spread = 0.3 if "embed_tokens" in name or "lm_head" in name else 0.15
        return spread * mx.random.normal(old.shape, key=key)

    parameters = tree_map_with_path(value, model.parameters())
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(parameters)), metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(settings, indent=1))
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders by name."""
    root = tmp_path_factory.mktemp("models")

    def folder(name: str) -> Path:
        path = root / name
        path.mkdir()
        return path

    from mlx_lm import convert

    plain = build_model(folder("qwen3"))
    convert(str(plain), str(root / "quantized"), quantize=True, q_group_size=32, q_bits=4)
    return {
        "qwen3": plain,
        "quantized": root / "quantized",
        "wide": build_model(folder("wide"), vocab_size=20_000, num_hidden_layers=1),
        "qwen3-untied": build_model(folder("qwen3-untied"), tied=False),
        "qwen2": build_model(folder("qwen2"), "qwen2"),
        "llama": build_model(folder("llama"), "llama"),
    }


@pytest.fixture(scope="session")
def load(models: dict[str, Path]):
    """Load a policy on one of the tiny models; keywords replace options, as in load("qwen2", lr=1e-2)."""

    def make(name: str = "qwen3", *, seed: int = 0, total_steps: int = 100, adapter: Path | None = None, **options):
        def pick(kind: type, **defaults: object) -> object:
            names = kind.__dataclass_fields__
            return kind(**{**defaults, **{k: v for k, v in options.items() if k in names}})

        known = {n for kind in (config.ModelConfig, config.LoraConfig, config.OptimConfig,
                               config.SamplingConfig, config.LossConfig)
                 for n in kind.__dataclass_fields__}  # fmt: skip
        assert options.keys() <= known, options.keys() - known
        return Policy.load(
            pick(config.ModelConfig, id=str(models[name]), style="compact", group_size=32),
            pick(config.LoraConfig, rank=4),
            pick(config.OptimConfig, lr=1e-2),
            pick(config.SamplingConfig),
            pick(config.LossConfig),
            seed=seed,
            total_steps=total_steps,
            adapter=adapter,
        )

    return make


def prompt(text: str, role: Role = Role.SOLVE, kind: Kind = Kind.DEDUCTION) -> Prompt:
    return Prompt(role, kind, text)
