"""Sizes of a model's matrices, from its config.json or a table of published ones, before anything is downloaded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azr_mlx import config, paths
from azr_mlx.errors import UsageError

# Shapes as published in each repository's config.json.
_QWEN25 = {"model_type": "qwen2", "vocab_size": 151_936, "tie_word_embeddings": True}
_QWEN3 = {"model_type": "qwen3", "vocab_size": 151_936, "tie_word_embeddings": True, "head_dim": 128}


def _sizes(width: int, layers: int, gate: int, heads: int, kv_heads: int) -> dict[str, int]:
    return {
        "hidden_size": width, "num_hidden_layers": layers, "intermediate_size": gate, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
    }  # fmt: skip


PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "qwen2.5-0.5b": _QWEN25 | _sizes(896, 24, 4864, 14, 2),
    "qwen2.5-1.5b": _QWEN25 | _sizes(1536, 28, 8960, 12, 2),
    "qwen2.5-3b": _QWEN25 | _sizes(2048, 36, 11_008, 16, 2),
    "qwen2.5-7b": _QWEN25 | _sizes(3584, 28, 18_944, 28, 4) | {"vocab_size": 152_064, "tie_word_embeddings": False},
    "qwen2.5-14b": _QWEN25 | _sizes(5120, 48, 13_824, 40, 8) | {"vocab_size": 152_064, "tie_word_embeddings": False},
    "qwen1.5-4b": _QWEN25 | _sizes(2560, 40, 6912, 20, 20) | {"tie_word_embeddings": False},
    "qwen3-0.6b": _QWEN3 | _sizes(1024, 28, 3072, 16, 8),
    "qwen3-1.7b": _QWEN3 | _sizes(2048, 28, 6144, 16, 8),
    "qwen3-4b": _QWEN3 | _sizes(2560, 36, 9728, 32, 8),
    "qwen3-8b": _QWEN3 | _sizes(4096, 36, 12_288, 32, 8) | {"tie_word_embeddings": False},
}


@dataclass(frozen=True, slots=True)
class Linear:
    """A matrix of one block: its path in the block, inputs and outputs."""

    path: str
    inputs: int
    outputs: int
    bias: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model's config.json says about sizes."""

    source: str  # where that was read
    kind: str
    width: int
    layers: int
    gate: int
    heads: int
    kv_heads: int
    head: int  # numbers of one attention head
    vocabulary: int
    tied: bool
    quantized: Mapping[str, Any] = field(default_factory=dict)  # of weights that come quantized

    @property
    def queries(self) -> int:
        return self.heads * self.head

    @property
    def keys(self) -> int:
        return self.kv_heads * self.head

    def linears(self) -> tuple[Linear, ...]:
        bias = self.kind == "qwen2"
        return (
            Linear("self_attn.q_proj", self.width, self.queries, bias),
            Linear("self_attn.k_proj", self.width, self.keys, bias),
            Linear("self_attn.v_proj", self.width, self.keys, bias),
            Linear("self_attn.o_proj", self.queries, self.width),
            Linear("mlp.gate_proj", self.width, self.gate),
            Linear("mlp.up_proj", self.width, self.gate),
            Linear("mlp.down_proj", self.gate, self.width),
        )

    @property
    def matrices(self) -> int:
        """Parameters of the blocks' matrices."""
        return self.layers * sum(one.inputs * one.outputs for one in self.linears())

    @property
    def parameters(self) -> int:
        """All parameters of the dense model."""
        biases = self.layers * sum(one.outputs for one in self.linears() if one.bias)
        norms = self.layers * (2 * self.width + (2 * self.head if self.kind == "qwen3" else 0)) + self.width
        return self.matrices + biases + norms + (1 if self.tied else 2) * self.vocabulary * self.width


def shape_of(model: config.ModelConfig) -> Shape:
    """The shapes of a model: of its folder, of the Hugging Face cache, or of the table of published ones.

    Raises UsageError, one line that says what to do, when none of them knows the model.
    """
    folder = paths.resolve_existing(model.id)
    if folder is not None and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UsageError(f"{folder} has no config.json: it is not a model folder")
        return _read(folder / "config.json")
    cached = _cached(model)
    if cached is not None:
        return _read(cached)
    name = model.id.rpartition("/")[2].lower()
    packed = re.search(r"-([234568])bit", name)
    known = re.match(r"(qwen[\d.]+)(?:-coder)?(-[\d.]+b)(?![\w.])", name)
    published = PUBLISHED.get("".join(known.groups())) if known else None
    if published is None:
        raise UsageError(
            f"the shapes of {model.id} are not known: fetch them with hf download {model.id} config.json, "
            "or name a local folder with --set model.id=FOLDER"
        )
    quantized = {"bits": int(packed.group(1)), "group_size": 64, "mode": "affine"} if packed else {}
    return _shape(published, "published shapes", quantized)


def _cached(model: config.ModelConfig) -> Path | None:
    """config.json of a repository in the Hugging Face cache. Never asks the network."""
    if model.id.count("/") != 1 or model.id.startswith((".", "/", "~")):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model.id, "config.json", revision=model.revision or None)
    return Path(found) if isinstance(found, str) else None


def _read(path: Path) -> Shape:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return _shape(said, str(path), said.get("quantization") or {})
    except (OSError, ValueError, AttributeError):
        raise UsageError(f"{path} cannot be read as JSON: fetch the model again") from None
    except (KeyError, TypeError) as error:
        raise UsageError(f"{path} is of a kind that azr plan does not know: it lacks {error}") from None


def _shape(said: Mapping[str, Any], source: str, quantized: Mapping[str, Any]) -> Shape:
    heads = int(said["num_attention_heads"])
    return Shape(
        source, str(said["model_type"]), int(said["hidden_size"]), int(said["num_hidden_layers"]),
        int(said["intermediate_size"]), heads, int(said.get("num_key_value_heads") or heads),
        int(said.get("head_dim") or said["hidden_size"] // heads), int(said["vocab_size"]),
        bool(said.get("tie_word_embeddings", False)), quantized,
    )  # fmt: skip


def adapter_parameters(lora: config.LoraConfig, shape: Shape) -> int:
    """Numbers in all adapters."""
    return sum(lora.rank * (one.inputs + one.outputs) for one in _adapted(lora, shape))


def _adapted(lora: config.LoraConfig, shape: Shape) -> Iterator[Linear]:
    layers = shape.layers if lora.layers < 0 else min(lora.layers, shape.layers)
    for _ in range(layers):
        yield from (one for one in shape.linears() if not lora.keys or one.path in lora.keys)


def adapted_parameters(lora: config.LoraConfig, shape: Shape) -> int:
    return sum(one.inputs * one.outputs for one in _adapted(lora, shape))
