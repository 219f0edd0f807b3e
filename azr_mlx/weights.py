"""From a model's name to a loaded model: find the weights, quantize them if they are not, fit them to the device."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any

from azr_mlx import config, device, places
from azr_mlx.errors import AzrError

# What mlx_lm itself downloads: weights, configuration, tokenizer and chat template.
PATTERNS = [
    "*.json",
    "model*.safetensors",
    "*.py",
    "tokenizer.model",
    "*.tiktoken",
    "*.txt",
    "*.jsonl",
    "*.jinja",
]


# Matrix products of a smaller model use one thread. Measured on two cores with 1 M parameters: a second thread saves a
# quarter of an update and nothing of a rollout when the machine is idle, and takes six times as long when it is not,
# for the threads of OpenBLAS spin while they wait; the executor needs the other core, and sums round differently.
ONE_THREAD_PARAMETERS = 100_000_000


class ModelNotFound(AzrError):
    """The model is neither a local folder nor a repository that can be reached or is cached."""


def resolve(model: config.Model) -> Path:
    """The local folder of a model: a folder as it is, a Hugging Face repository through the hub's cache.

    Raises ModelNotFound with one line that says what was tried.
    """
    folder = places.local(model.id)
    if folder is not None and folder.is_dir():
        if not (folder / "config.json").exists():
            raise ModelNotFound(f"{folder} has no config.json: it is not a model folder")
        if not any(folder.glob("model*.safetensors")):
            raise ModelNotFound(f"{folder} has no model*.safetensors: weights are missing")
        return folder
    if model.id.startswith((".", "/", "~")) or model.id.count("/") != 1:
        raise ModelNotFound(f"no model folder at {model.id}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model.id, revision=model.revision or None, allow_patterns=PATTERNS))
    except LocalEntryNotFoundError:
        raise ModelNotFound(
            f"{model.id} is neither a local folder nor in the Hugging Face cache, and the hub cannot be reached"
        ) from None
    except (HfHubHTTPError, ValueError) as error:
        raise ModelNotFound(f"{model.id} cannot be downloaded: {str(error).splitlines()[0]}") from None


def load(model: config.Model, profile: device.Profile) -> tuple[Any, Any, dict[str, Any], Path]:
    """The model of `model.id`, quantized, in evaluation mode, not yet adapted.

    Full-precision weights are quantized to `model.bits` by mlx_lm's own function. On a GPU the packed weights stay;
    on a CPU they are expanded to float32: the values remain those of the quantization grid, so the policy is the same.
    Returns (model, tokenizer, configuration as loaded, folder).
    """
    import mlx.core as mx
    from mlx_lm.utils import dequantize_model, get_total_parameters, load_model, load_tokenizer, quantize_model

    from azr_mlx import linux_cpu

    folder = resolve(model)
    network, settings = load_model(folder, lazy=True)
    tokenizer = load_tokenizer(folder, eos_token_ids=settings.get("eos_token_id"))
    if "quantization" not in settings:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints the bits per weight
            network, settings = quantize_model(network, settings, model.group_size, model.bits, mode=model.mode)
    dtype = device.activation_dtype(model.dtype, profile)
    # Older 4-bit conversions store float16 scales and would compute in float16, which overflows in training. Models
    # with parameters that must keep their type (the decay of a gated delta net) say so in `cast_predicate`.
    keep = getattr(network, "cast_predicate", None)
    if keep is None:
        network.set_dtype(dtype)
    else:
        from mlx.utils import tree_map_with_path

        def cast(name: str, value: mx.array) -> mx.array:
            return value.astype(dtype) if keep(name) and mx.issubdtype(value.dtype, mx.floating) else value

        network.update(tree_map_with_path(cast, network.parameters()))
    if not profile.packed:
        network = dequantize_model(network)
        linux_cpu.fit(network)
        if "OPENBLAS_NUM_THREADS" not in os.environ and get_total_parameters(network) < ONE_THREAD_PARAMETERS:
            device.blas_threads(1)
    network.eval()
    mx.eval(network.parameters())
    return network, tokenizer, settings, folder
