"""The adapter in the layout of PEFT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from azr_mlx import config
from azr_mlx.errors import UsageError
from azr_mlx.export.tokenizer import write_tokenizer


def adapted(model: Any) -> dict[str, Any]:
    """The adapted layers of a model by their path. Raises UsageError when one is of a kind that has no counterpart."""
    from mlx_lm.tuner.lora import LoRALinear

    found = {name: module for name, module in model.named_modules() if "lora_a" in module}
    odd = [name for name, module in found.items() if not isinstance(module, LoRALinear)]
    if odd:
        raise UsageError(f"{odd[0]} is adapted in a way that PEFT and fused models cannot hold: --format mlx")
    return found


def peft_config(model: Any, settings: config.LoraConfig, base: str) -> dict[str, Any]:
    """adapter_config.json of PEFT: the same update W + (alpha / r) B A on the same layers.

    Leaf names and layer numbers when they select exactly the adapted layers, full paths otherwise.
    """
    from mlx import nn

    paths = set(adapted(model))
    leaves = sorted({path.rpartition(".")[2] for path in paths})
    layers = sorted({int(path.split(".layers.")[1].split(".")[0]) for path in paths})
    linear = {
        name.removesuffix(".linear")
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.QuantizedLinear)
    }
    selected = {
        name
        for name in linear
        if name.rpartition(".")[2] in leaves and ".layers." in name
        and int(name.split(".layers.")[1].split(".")[0]) in layers
    }  # fmt: skip
    exact = selected == paths
    everywhere = len(layers) == len(model.layers)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": settings.rank,
        "lora_alpha": settings.scale * settings.rank,
        "target_modules": leaves if exact else sorted(paths),
        "layers_to_transform": layers if exact and not everywhere else None,
        "layers_pattern": "layers" if exact and not everywhere else None,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "inference_mode": True,
    }


def write_peft(policy: Any, folder: Path, base: str) -> None:
    """adapter_model.safetensors, adapter_config.json and the tokenizer. A = lora_a^T (r, in), B = lora_b^T (out, r)."""
    import mlx.core as mx

    tensors = {}
    for path, module in adapted(policy.model).items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = mx.contiguous(module.lora_a.T.astype(mx.float32))
        tensors[f"base_model.model.{path}.lora_B.weight"] = mx.contiguous(module.lora_b.T.astype(mx.float32))
    mx.save_safetensors(str(folder / "adapter_model.safetensors"), tensors, metadata={"format": "pt"})
    described = peft_config(policy.model, policy.lora, base)
    (folder / "adapter_config.json").write_text(json.dumps(described, indent=2) + "\n")
    write_tokenizer(policy, folder)
