"""The models that the presets name, in their exact shapes, without weights: MLX computes nothing until it is asked.

Shapes as published in the config.json of each repository.
"""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from azr_mlx import config
from azr_mlx import export as exporter
from azr_mlx.model import device

import mlx.nn as nn  # isort: skip

QWEN2 = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "rms_norm_eps": 1e-6, "hidden_act": "silu",
         "vocab_size": 151_936, "max_position_embeddings": 32_768, "use_sliding_window": False}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2.5-coder-3b": QWEN2 | {
        "hidden_size": 2048, "intermediate_size": 11_008, "num_hidden_layers": 36, "num_attention_heads": 16,
        "num_key_value_heads": 2, "rope_theta": 1e6, "tie_word_embeddings": True,
    },
    "qwen2.5-coder-7b": QWEN2 | {
        "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "rope_theta": 1e6, "tie_word_embeddings": False, "vocab_size": 152_064,
    },
    "qwen2.5-coder-0.5b-instruct": QWEN2 | {
        "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
        "num_key_value_heads": 2, "rope_theta": 1e6, "tie_word_embeddings": True,
    },
    "qwen2.5-coder-1.5b-instruct": QWEN2 | {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
        "num_key_value_heads": 2, "rope_theta": 1e6, "tie_word_embeddings": True,
    },
    "qwen3-0.6b": QWEN2 | {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 1024, "intermediate_size": 3072,
        "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "rope_theta": 1e6, "tie_word_embeddings": True, "max_position_embeddings": 40_960, "attention_bias": False,
    },
    "qwen3-1.7b": QWEN2 | {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 2048, "intermediate_size": 6144,
        "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "rope_theta": 1e6, "tie_word_embeddings": True, "max_position_embeddings": 40_960, "attention_bias": False,
    },
    "qwen3-4b": QWEN2 | {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 2560, "intermediate_size": 9728,
        "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "rope_theta": 1e6, "tie_word_embeddings": True, "max_position_embeddings": 40_960, "attention_bias": False,
    },
    "qwen1.5-4b": QWEN2 | {
        "hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 40, "num_attention_heads": 20,
        "num_key_value_heads": 20, "rope_theta": 5e6, "tie_word_embeddings": False,
    },
}  # fmt: skip
# Parameters of the dense model in thousands of millions, as its card gives them.
BILLIONS = {
    "qwen2.5-coder-0.5b-instruct": 0.49, "qwen2.5-coder-1.5b-instruct": 1.54, "qwen2.5-coder-3b": 3.09,
    "qwen2.5-coder-7b": 7.61, "qwen3-0.6b": 0.60, "qwen3-1.7b": 1.72, "qwen3-4b": 4.02, "qwen1.5-4b": 3.95,
}  # fmt: skip
PROJECTIONS = {
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
}  # fmt: skip


@pytest.fixture(params=SHAPES)
def shape(request) -> tuple[str, dict[str, Any], config.Config, Any]:
    """A preset's name, its model's shapes, its settings, and its 4-bit model with adapters, none of it computed."""
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import quantize_model

    name = request.param
    settings = config.load(name)
    module = importlib.import_module(f"mlx_lm.models.{SHAPES[name]['model_type']}")
    network = module.Model(module.ModelArgs.from_dict(SHAPES[name]))
    m = settings.model
    network, _ = quantize_model(network, dict(SHAPES[name]), m.group_size, m.bits, mode=m.mode)
    network.freeze()
    lora = {"rank": settings.lora.rank, "scale": settings.lora.scale, "dropout": 0.0}
    linear_to_lora_layers(network, settings.lora.layers, lora)
    return name, SHAPES[name], settings, network


def test_every_projection_of_every_layer_has_an_adapter_and_nothing_else_has(shape) -> None:
    _, said, _, network = shape
    expected = {f"model.layers.{i}.{path}" for i in range(said["num_hidden_layers"]) for path in PROJECTIONS}
    assert set(exporter.adapted(network)) == expected


def test_building_and_describing_a_model_holds_none_of_it(shape) -> None:
    _, _, settings, network = shape
    device.clear_cache()
    device.reset_peak()
    list(exporter.fused_tensors(SimpleNamespace(model=network)))
    exporter.peft_config(network, settings.lora, "base")
    assert device.memory().peak < 50e6


def test_the_exported_model_has_the_published_number_of_parameters(shape) -> None:
    name, _, _, network = shape
    count = sum(math.prod(one.shape) for one in exporter.fused_tensors(SimpleNamespace(model=network)))
    assert count / 1e9 == pytest.approx(BILLIONS[name], abs=0.01)


def test_the_export_has_the_names_and_shapes_of_transformers(shape) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: make hf-check installs it")
    from transformers import AutoConfig, AutoModelForCausalLM

    _, said, _, network = shape
    with torch.device("meta"):
        theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(**said))
    expected = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    if said["tie_word_embeddings"]:
        expected.pop("lm_head.weight")
    assert {one.name: one.shape for one in exporter.fused_tensors(SimpleNamespace(model=network))} == expected


@pytest.mark.parametrize("layers", [-1, 8])
def test_peft_puts_its_adapters_on_the_same_layers_with_the_same_shapes(shape, layers: int) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: make hf-check installs it")
    peft = pytest.importorskip("peft", reason="peft is not installed: make hf-check installs it")
    from transformers import AutoConfig, AutoModelForCausalLM

    _, said, settings, network = shape
    if layers > 0:  # adapters of the first layers are taken off again
        for block in network.layers[:-layers]:
            block.update_modules(_plain(block))
    ours = {}
    for path, module in exporter.adapted(network).items():
        ours[f"base_model.model.{path}.lora_A.default.weight"] = module.lora_a.shape[::-1]
        ours[f"base_model.model.{path}.lora_B.default.weight"] = module.lora_b.shape[::-1]
    described = exporter.peft_config(network, settings.lora, "base")
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(AutoConfig.for_model(**said))
        theirs = peft.get_peft_model(base, peft.LoraConfig(**described), low_cpu_mem_usage=True)
    adapters = {name: tuple(value.shape) for name, value in theirs.state_dict().items() if ".lora_" in name}
    assert adapters == ours
    scales = {m.scaling["default"] for m in theirs.modules() if isinstance(getattr(m, "scaling", None), dict)}
    assert scales == {settings.lora.scale}


def test_a_mixed_selection_is_named_path_by_path() -> None:
    """When leaf names and layer numbers would select too much, PEFT is given every path in full."""
    name = "qwen1.5-4b"
    module = importlib.import_module("mlx_lm.models.qwen2")
    network = module.Model(module.ModelArgs.from_dict(SHAPES[name] | {"num_hidden_layers": 2}))
    from mlx_lm.tuner.lora import LoRALinear

    for layer, leaf in ((0, "q_proj"), (1, "o_proj")):
        attention = network.layers[layer].self_attn
        attention[leaf] = LoRALinear.from_base(attention[leaf], r=4)
    described = exporter.peft_config(network, config.LoraConfig(rank=4), "base")
    assert described["target_modules"] == ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.o_proj"]
    assert described["layers_to_transform"] is None


def _plain(block: nn.Module) -> Any:
    from mlx.utils import tree_unflatten
    from mlx_lm.tuner.lora import LoRALinear

    return tree_unflatten([(path, m.linear) for path, m in block.named_modules() if isinstance(m, LoRALinear)])


@pytest.mark.parametrize("name", config.presets())
def test_every_preset_names_a_model_that_the_shapes_above_or_the_repository_hold(name: str, root: Path) -> None:
    model = config.load(name).model
    local = root / model.id
    assert (local / "config.json").is_file() or any(part.lower() in model.id.lower() for part in SHAPES)
    if (local / "config.json").is_file():
        assert json.loads((local / "config.json").read_text())["model_type"] == "qwen3"
