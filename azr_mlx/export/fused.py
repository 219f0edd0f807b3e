"""A whole Hugging Face model with the adapter added (or without it), written piece by piece."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azr_mlx.export.formats import DTYPES
from azr_mlx.export.peft import adapted
from azr_mlx.export.tokenizer import write_tokenizer
from azr_mlx.model import device, weights

PIECE = 64 * 10**6  # bytes of a matrix that are computed at once when weights are written


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written: its Hugging Face name, its shape, and its rows i to j in float32 when asked for."""

    name: str
    shape: tuple[int, ...]
    rows: Callable[[int, int], Any]


def fused_tensors(policy: Any, adapters: bool = True) -> Iterator[Tensor]:
    """The weights of the policy as one dense model, in the model's order; nothing is computed before its rows are.

    Names are those of Hugging Face: for Qwen 2, Qwen 3 and Llama mlx_lm has the same, without transposes.
    Packed weights are expanded in float32 from the scales that the policy computes with.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten

    layers = adapted(policy.model)
    modules = dict(policy.model.named_modules())

    def dense(module: Any, i: int, j: int) -> Any:
        if "scales" not in module:
            return module.weight[i:j].astype(mx.float32)
        scales, biases = module.scales[i:j], module.get("biases")
        if module.mode == "affine":
            scales, biases = scales.astype(mx.float32), biases[i:j].astype(mx.float32)
        options = {"group_size": module.group_size, "bits": module.bits, "mode": module.mode}
        return mx.dequantize(module.weight[i:j], scales, biases, **options).astype(mx.float32)

    def weight(path: str) -> Callable[[int, int], Any]:
        module, owner = modules[path], layers.get(path.removesuffix(".linear"))
        if owner is None or not adapters or not path.endswith(".linear"):
            return lambda i, j: dense(module, i, j)
        return lambda i, j: (
            dense(module, i, j) + owner.scale * (owner.lora_b[:, i:j].T.astype(mx.float32) @ owner.lora_a.T)
        )

    for name, value in tree_flatten(policy.model.parameters()):
        path, _, leaf = name.rpartition(".")
        if leaf in ("lora_a", "lora_b") or (leaf in ("scales", "biases") and "scales" in modules[path]):
            continue
        owner = path.removesuffix(".linear")
        public = f"{owner if owner in layers else path}.{leaf}"
        if leaf == "weight":
            shape = list(value.shape)
            if "scales" in modules[path]:
                shape[-1] = shape[-1] * 32 // modules[path].bits
            yield Tensor(public, tuple(shape), weight(path))
        else:
            yield Tensor(public, tuple(value.shape), lambda i, j, value=value: value[i:j].astype(mx.float32))  # type: ignore[misc]


def write_fused(
    policy: Any, folder: Path, dtype: str = "f32", adapters: bool = True, shard: int = weights.SHARD
) -> None:
    """A Hugging Face model folder, written piece by piece: memory grows by some hundred megabytes, whatever the model.

    shard: most bytes of weights in one file (a larger tensor has a file of its own).
    """
    tensors = list(fused_tensors(policy, adapters))
    width = 4 if dtype == "f32" else 2
    parts: list[list[Tensor]] = [[]]
    for tensor in tensors:
        size = sum(math.prod(one.shape) for one in parts[-1]) * width
        if parts[-1] and size + math.prod(tensor.shape) * width > shard:
            parts.append([])
        parts[-1].append(tensor)
    total = sum(math.prod(tensor.shape) for tensor in tensors) * width
    index: dict[str, str] = {}
    with weights.progress_bar(f"writing {folder.name} in {DTYPES[dtype]}", total, quiet=True) as advance:
        for number, part in enumerate(parts, 1):
            name = "model.safetensors" if len(parts) == 1 else f"model-{number:05d}-of-{len(parts):05d}.safetensors"
            write_safetensors(folder / name, part, dtype, advance)
            index |= {tensor.name: name for tensor in part}
    if len(parts) > 1:
        listing = {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(listing, indent=2) + "\n")
    _write_configs(policy, folder, dtype)
    write_tokenizer(policy, folder)


def write_safetensors(
    path: Path, tensors: Sequence[Tensor], dtype: str, advance: Callable[[int], None] = lambda count: None
) -> None:
    """A safetensors file whose tensors are computed while it is written, PIECE bytes at a time.

    The format: 8 bytes of header length, little-endian; a JSON header padded with blanks to 8 bytes; the data.
    """
    import mlx.core as mx
    import numpy as np

    width, kind = {"f32": (4, mx.float32), "f16": (2, mx.float16), "bf16": (2, mx.bfloat16)}[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + math.prod(tensor.shape) * width
        header[tensor.name] = {"dtype": dtype.upper(), "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            step = max(1, PIECE // max(1, 4 * math.prod(tensor.shape[1:])))
            for i in range(0, tensor.shape[0], step):
                piece = tensor.rows(i, min(i + step, tensor.shape[0])).astype(kind)
                raw = np.array(piece.view(mx.uint16) if dtype == "bf16" else piece)
                file.write(np.ascontiguousarray(raw).tobytes())
                advance(raw.nbytes)
            device.clear_cache()


def _write_configs(policy: Any, folder: Path, dtype: str) -> None:
    """config.json and generation_config.json, complete and as the base model has them but for the number format."""
    source = policy.folder
    settings = weights.written_config(source)
    for name in ("quantization", "quantization_config"):
        settings.pop(name, None)
    settings.setdefault("architectures", [f"{settings['model_type'].capitalize()}ForCausalLM"])
    settings |= {"torch_dtype": DTYPES[dtype], "dtype": DTYPES[dtype]}
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    if not weights.copy_files(source, folder, ("generation_config.json",)):
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        generation = {name: settings[name] for name in names if settings.get(name) is not None}
        generation["eos_token_id"] = sorted(policy.stop_tokens)
        (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    weights.copy_files(source, folder, ("LICENSE*",))
