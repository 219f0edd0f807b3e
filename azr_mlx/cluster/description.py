"""What coordinator and workers must have in common, and the run as a worker needs to know it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from azr_mlx import config
from azr_mlx.model import device
from azr_mlx.model.policy import Policy
from azr_mlx.versions import result_versions

# A difference in one of these is refused: the same item would have another result.
SAME = ("azr_mlx", "mlx", "mlx-lm", "model", "adapters")
# A difference in one of these is said: results are then equal up to rounding only.
ALIKE = ("arithmetic", "numpy", "transformers", "scipy-openblas32")


def versions() -> dict[str, str]:
    """What can be compared before a model is loaded."""
    return {name: value for name, value in result_versions().items() if name != "python"}


def describe(policy: Policy) -> dict[str, str]:
    """Names and hashes of everything an item's result depends on, its content and the adapters apart."""
    layout = [(name, list(value.shape)) for name, value in sorted(policy.adapter().items())]
    profile = device.prepare()
    return versions() | {
        "model": weights_hash(policy),
        "adapters": hashlib.sha256(repr((layout, policy.lora_parameters)).encode()).hexdigest()[:16],
        "arithmetic": f"{profile.name}: {profile.device_name}",
    }


def weights_hash(policy: Policy) -> str:
    """Hash of the weights as they are computed with (quantized, in their type), and of the tokenizer's file."""
    digest = hashlib.sha256()
    adapters = policy.adapter().keys()
    for name, value in sorted(tree_flatten(policy.model.parameters())):
        if name not in adapters:
            digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
            digest.update(np.array(mx.contiguous(value).view(mx.uint8), copy=False).data)
    tokenizer = policy.folder / "tokenizer.json"
    if tokenizer.is_file():
        digest.update(tokenizer.read_bytes())
    return digest.hexdigest()[:16]


def differences(mine: Mapping[str, str], theirs: Mapping[str, str], names: tuple[str, ...]) -> list[str]:
    """What differs, in words: "mlx 0.32.4 here, 0.33.0 on the worker"."""
    return [
        f"{name} {mine.get(name, 'none')} on the coordinator, {theirs.get(name, 'none')} on the worker"
        for name in names
        if mine.get(name) != theirs.get(name)
    ]


def run_text(settings: config.Config) -> str:
    """The part of a configuration that a worker loads its policy by, as YAML.

    A worker words nothing: of a prompt style that is a file here it needs only whether tags are ordinary text.
    """
    model = settings.model
    if model.style not in config.style_names():
        model = replace(model, style="r1" if config.load_style(model.style).tags else "text-direct")
    return config.dump(config.Config(model=model, lora=settings.lora))


def read_run(text: Any) -> config.Config:
    """The configuration of `run_text`, each option checked. Raises ConfigError or ValueError."""
    if not isinstance(text, str) or len(text) > 100_000:
        raise ValueError("the coordinator describes its run in another form")
    return config.parse(text, "the coordinator's run")
