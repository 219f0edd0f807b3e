"""adapter_config.json: how mlx_lm describes the adapters of a folder. Plain Python: reading it needs no MLX."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from azr_mlx import config

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What adapter_config.json says. `model` is empty when it names none; `kind` is "lora" for what azr_mlx loads."""

    lora: config.LoraConfig
    model: str
    kind: str


def read_adapter_config(folder: Path) -> AdapterConfig:
    """The description of the adapters in `folder`. Raises OSError or ValueError when there is none, or another one."""
    try:
        described = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        parameters = described["lora_parameters"]
        lora = config.LoraConfig(
            rank=int(parameters["rank"]), scale=float(parameters["scale"]), layers=int(described["num_layers"]),
            keys=tuple(parameters.get("keys") or ()),
        )  # fmt: skip
        return AdapterConfig(lora, str(described.get("model") or ""), str(described.get("fine_tune_type", "lora")))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(str(error)) from None
