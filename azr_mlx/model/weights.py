"""From a model's name to a loaded model: find the weights, quantize them if they are not, fit them to the device.

Only safetensors are read, and no code that comes with a model is ever run.

A model that is not quantized is quantized once, tensor by tensor, into `$AZR_CACHE/quantized` (`~/.cache/azr_mlx` when
the variable is not set): an ordinary 4-bit MLX folder that `mlx_lm` loads as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from azr_mlx import config, paths
from azr_mlx.errors import AzrError
from azr_mlx.model import device, rope

CACHE_VARIABLE = "AZR_CACHE"
# Weights, configuration, tokenizer, chat template, and the card that names the licence. No code, no pickles.
PATTERNS = [
    "*.json",
    "model*.safetensors",
    "tokenizer.model",
    "*.tiktoken",
    "*.txt",
    "*.jinja",
    "README.md",
    "LICENSE*",
]
# Files that make a tokenizer, or belong to it.
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "tokenizer.model", "*.tiktoken", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
# Below this many bytes a model is quantized anew each time: it takes a second, and leaves nothing behind.
SMALL = 100 * 10**6
SHARD = 4 * 10**9  # bytes of one file of weights
# Matrix products of a smaller model use one thread. Measured on two cores with 1 M parameters: a second thread saves a
# quarter of an update and nothing of a rollout when the machine is idle, and takes six times as long when it is not,
# for the threads of OpenBLAS spin while they wait; the executor needs the other core, and sums round differently.
ONE_THREAD_PARAMETERS = 100_000_000
UNSAFE = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.h5", "*.msgpack")


class ModelNotFound(AzrError):
    """The model is neither a local folder nor a repository that can be reached or is cached."""


class DamagedWeights(AzrError):
    """A safetensors file that is cut, or is none."""


# -- finding ------------------------------------------------------------------------------------------------


def resolve(model: config.ModelConfig) -> Path:
    """The local folder of a model: a folder as it is, a Hugging Face repository through the hub's cache.

    With HF_HUB_OFFLINE=1, or without a network, what is in the cache is used. Raises ModelNotFound with one line that
    says what was tried, and DamagedWeights for a file that is not whole.
    """
    folder = paths.resolve_existing(model.id)
    if folder is not None and folder.is_dir():
        if model.revision:
            raise ModelNotFound(f"{model.id} is a folder: model.revision belongs to a Hugging Face repository")
    elif model.id.startswith((".", "/", "~")) or model.id.count("/") != 1:
        raise ModelNotFound(f"no model folder at {model.id}")
    else:
        folder = _download(model)
    _check_folder(folder)
    return folder


def _download(model: config.ModelConfig) -> Path:
    """The snapshot of a repository at `model.revision`, fetched if need be.

    What the hub does not give, because it cannot be reached, is down or refuses, is taken from the cache, with a note,
    when it is there. Raises ModelNotFound.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RevisionNotFoundError

    name = model.id + (f" at revision {model.revision}" if model.revision else "")
    words: dict[str, Any] = {"revision": model.revision or None, "allow_patterns": PATTERNS}
    refused: Exception | None = None
    if not constants.HF_HUB_OFFLINE:
        try:
            with contextlib.suppress(TypeError):  # hub versions before 1.1 cannot say what a download would take
                planned: Any = snapshot_download(model.id, dry_run=True, **words)
                wanted = sum(file.file_size for file in planned if file.will_download)
                check_room(Path(constants.HF_HUB_CACHE), wanted, f"downloading {model.id}")
            return Path(snapshot_download(model.id, **words))
        except RevisionNotFoundError:
            raise ModelNotFound(f"{model.id} has no revision {model.revision}") from None
        except AzrError:
            raise
        except Exception as error:  # of the hub, of one of two HTTP libraries, or of the disk
            # A dry run that fails is told as such, with what went wrong as its cause.
            refused = error.__cause__ if isinstance(error.__cause__, Exception) else error
    try:
        folder = Path(snapshot_download(model.id, local_files_only=True, **words))
    except LocalEntryNotFoundError:
        raise _why_not(model, name, refused) from None
    except (OSError, ValueError) as error:
        raise ModelNotFound(f"{name} in the Hugging Face cache cannot be used: {first_line(error)}") from None
    if refused is not None:
        why = first_line(refused)[:200]
        sys.stderr.write(f"note: {name} is taken from the cache, the hub does not answer ({why})\n")
    return folder


def _why_not(model: config.ModelConfig, name: str, refused: Exception | None) -> ModelNotFound:
    """Why a repository that is not in the cache did not come from the hub either."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    nowhere = f"{name} is neither a local folder nor in the Hugging Face cache"
    if refused is None:
        return ModelNotFound(f"{nowhere}, and HF_HUB_OFFLINE is set")
    if isinstance(refused, GatedRepoError):
        return ModelNotFound(
            f"{name} asks for its licence to be accepted: do so on huggingface.co/{model.id}, then hf auth login"
        )
    if isinstance(refused, RepositoryNotFoundError):
        return ModelNotFound(f"there is no repository {model.id}, or it is private: hf auth login")
    if isinstance(refused, HfHubHTTPError | ValueError) or (
        isinstance(refused, OSError) and not isinstance(refused, LocalEntryNotFoundError | ConnectionError)
    ):
        return ModelNotFound(f"{name} cannot be downloaded: {first_line(refused)}")
    return ModelNotFound(f"{nowhere}, and the hub cannot be reached")


def _check_folder(folder: Path) -> None:
    """Raise one line unless the folder holds a model that can be read."""
    if not (folder / "config.json").is_file():
        raise ModelNotFound(f"{folder} has no config.json: it is not a model folder")
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        other = next((path.name for kind in UNSAFE for path in folder.glob(kind)), None)
        instead = f", only {other}: just safetensors are read" if other else ": weights are missing"
        raise ModelNotFound(f"{folder} has no model*.safetensors{instead}")
    found = {name for path in files for name in tensors(path)}
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            listed: dict[str, str] = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
            named = set(listed.values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DamagedWeights(f"{index} is damaged: fetch the model again") from None
        # An index may be older than the files beside it, as where a model was quantized or merged in place: what counts
        # is whether its tensors are there. mlx_lm reads the files and not the index.
        missing = sorted(named - {path.name for path in files})
        if missing and not listed.keys() <= found:
            raise ModelNotFound(f"{folder} lacks {len(missing)} of its {len(named)} weight files, first {missing[0]}")


def tensors(path: Path) -> dict[str, dict[str, Any]]:
    """The header of a safetensors file: name -> {dtype, shape, data_offsets}, without reading the data.

    Raises DamagedWeights when the file is shorter or longer than its header says, or has none.
    """
    damaged = DamagedWeights(f"{path} is damaged or cut off: delete it and fetch or write it again")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= size - 8:
                raise damaged
            header = json.loads(file.read(length))
        found = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in found.values()), default=0)
    except OSError as error:
        raise DamagedWeights(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise damaged from None
    if size != 8 + length + end:
        raise damaged
    return found


def settled(folder: Path) -> dict[str, Any]:
    """What the configuration of a folder leaves unsaid or says in a place or a form that mlx_lm does not read.

    Position embeddings: see rope.py. transformers 5 also drops `tie_word_embeddings` when it has its default, which
    differs between the two libraries (false there, true for Qwen 2 in mlx_lm). The weights decide that: a model with an
    own output matrix is not tied. Raises rope.UnknownRope.
    """
    settings = read_config(folder)
    changes: dict[str, Any] = {}
    if "text_config" not in settings:
        changes |= rope.for_reading(settings, _readable(settings), str(folder / "config.json"))
    return changes | _tying(settings, folder)


def written_config(folder: Path) -> dict[str, Any]:
    """The configuration of a folder, complete, as transformers 4 and 5 and mlx_lm read it. Raises rope.UnknownRope."""
    settings = read_config(folder)
    if "text_config" in settings:
        return settings
    return rope.for_writing(settings, str(folder / "config.json")) | _tying(settings, folder)


def _tying(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    if "tie_word_embeddings" in settings or "text_config" in settings:
        return {}
    names = {name for path in folder.glob("model*.safetensors") for name in tensors(path)}
    return {"tie_word_embeddings": "lm_head.weight" not in names}


def _readable(settings: Mapping[str, Any]) -> set[str]:
    """The names that mlx_lm's class of this model takes from a configuration. Raises AzrError for an unknown model."""
    from mlx_lm.utils import _get_classes

    try:
        return set(inspect.signature(_get_classes(dict(settings))[1]).parameters)
    except (ValueError, KeyError) as error:
        raise AzrError(f"not a model that mlx_lm can build: {first_line(error)}") from None


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder. Raises ModelNotFound."""
    return _read_json(folder / "config.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ModelNotFound(f"{path} cannot be read as JSON") from None
    return value


# -- loading ------------------------------------------------------------------------------------------------


def open_model(model: config.ModelConfig, profile: device.Profile) -> tuple[Any, Any, dict[str, Any], Path]:
    """The model of `model.id`, quantized, in evaluation mode, not yet adapted.

    Full-precision weights are quantized to `model.bits` by mlx_lm's own function. On a GPU the packed weights stay;
    on a CPU they are expanded to float32: the values remain those of the quantization grid, so the policy is the same.
    Returns (model, tokenizer, configuration as loaded, folder that `model.id` names).
    Raises ModelNotFound, DamagedWeights, and AzrError when the disk is too small or the architecture unknown.
    """
    import mlx.core as mx
    from mlx_lm.utils import dequantize_model, get_total_parameters, load_tokenizer

    from azr_mlx.model import cpu_kernels

    folder = resolve(model)
    network, settings = _quantized(model, folder)
    try:
        tokenizer = load_tokenizer(folder, eos_token_ids=settings.get("eos_token_id"))
    except (OSError, ValueError, KeyError) as error:
        raise ModelNotFound(f"the tokenizer of {folder} cannot be loaded: {first_line(error)}") from None
    if not tokenizer.eos_token_ids:
        sys.stderr.write(
            f"note: {model.id} names no end token, so that its texts end only at a stop text or at the token limit: "
            'add "eos_token_id" to its config.json\n'
        )
    # Older 4-bit conversions store float16 scales and would compute in float16, which overflows in training.
    cast(network, device.activation_dtype(model.dtype, profile))
    if not profile.packed:
        network = dequantize_model(network)
        cpu_kernels.fit(network)
        if "OPENBLAS_NUM_THREADS" not in os.environ and get_total_parameters(network) < ONE_THREAD_PARAMETERS:
            device.blas_threads(1)
    network.eval()
    with reading(folder):
        mx.eval(network.parameters())
    return network, tokenizer, settings, folder


def cast(network: Any, dtype: Any) -> None:
    """Bring the floating-point parameters of a model to one dtype; packed integers stay.

    Models with parameters that must keep their type (the decay of a gated delta net) say so in `cast_predicate`.
    """
    import mlx.core as mx
    from mlx.utils import tree_map_with_path

    keep = getattr(network, "cast_predicate", None)

    def changed(name: str, value: mx.array) -> mx.array:
        wanted = mx.issubdtype(value.dtype, mx.floating) and (keep is None or keep(name))
        return value.astype(dtype) if wanted else value

    network.update(tree_map_with_path(changed, network.parameters()))


def open_lazily(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The model of a folder and its configuration; weights are read when they are evaluated. Raises AzrError."""
    from mlx_lm.utils import load_model

    try:
        with reading(folder):
            network, settings = load_model(folder, lazy=True, model_config=settled(folder))
    except (ValueError, KeyError, TypeError) as error:
        packed = read_config(folder).get("quantization_config")
        if packed and "quantization" not in read_config(folder):
            raise _unreadable(folder, packed) from None
        raise AzrError(f"{folder} is not a model that mlx_lm can build: {first_line(error)}") from None
    if "quantization" not in settings and "quantization_config" in settings:
        raise _unreadable(folder, settings["quantization_config"])
    return network, settings


def _unreadable(folder: Path, packed: Any) -> AzrError:
    """What is said of weights that other tools quantized (FP8, bitsandbytes, ...) and mlx_lm does not read."""
    method = packed.get("quant_method") if isinstance(packed, Mapping) else None
    form = f"as {method!s:.40}" if method else "in a form"
    return AzrError(f"{folder} is quantized {form}, which has no MLX counterpart: take the original weights")


def _quantized(model: config.ModelConfig, folder: Path) -> tuple[Any, dict[str, Any]]:
    """The model with packed weights: as it is, from the cache, or quantized now (and kept unless it is small)."""
    from mlx_lm.utils import quantize_model

    kept = quantized_folder(model, folder)
    if kept is not None and (kept / "config.json").is_file():
        _check_folder(kept)
        return open_lazily(kept)
    network, settings = open_lazily(folder)
    if "quantization" in settings:
        return network, settings
    try:
        with contextlib.redirect_stdout(_Nowhere()):  # it prints the bits per weight
            network, settings = quantize_model(network, settings, model.group_size, model.bits, mode=model.mode)
    except ValueError as error:
        raise AzrError(
            f"{model.id} cannot be quantized with bits {model.bits}, group_size {model.group_size}, mode {model.mode}: "
            f"{first_line(error)}"
        ) from None
    if kept is None:
        return network, settings
    _keep_quantized(model, network, settings, folder, kept)
    del network  # its lazy arrays hold on to the full-precision files
    return open_lazily(kept)


def quantized_folder(model: config.ModelConfig, folder: Path) -> Path | None:
    """Where the quantized form of a full-precision folder is or would be kept; None when it is not (small, packed).

    The name holds a digest of the quantization, the configuration and every weight file's name, size and time (the
    hub's snapshot links to files named by their hash), so that another model never passes for this one.
    """
    settings = _read_json(folder / "config.json")
    files = sorted(folder.glob("model*.safetensors"))
    if "quantization" in settings or sum(path.stat().st_size for path in files) < SMALL:
        return None
    blobs = [(path.name, path.stat().st_size, path.resolve().name, path.stat().st_mtime_ns) for path in files]
    what = json.dumps([str(folder.resolve()), blobs, settings, model.bits, model.group_size, model.mode])
    name = re.sub(r"[^\w.-]+", "--", model.id.strip("./~")).strip("-")
    digest = hashlib.sha256(what.encode()).hexdigest()[:12]
    return cache() / "quantized" / f"{name}-{model.bits}bit-{model.mode}-{model.group_size}-{digest}"


def cache() -> Path:
    """The folder of what this package may write and a person may delete."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "azr_mlx"


def _keep_quantized(
    model: config.ModelConfig, network: Any, settings: Mapping[str, Any], folder: Path, target: Path
) -> None:
    """Quantize tensor by tensor into `target`, with a progress bar; at no time is the full-precision model in memory.

    Raises AzrError when the disk is too small, and then leaves nothing behind.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten

    parameters = dict(tree_flatten(network.parameters()))
    total = sum(value.nbytes for value in parameters.values())
    check_room(target, total, f"quantizing {model.id}")
    fresh = target.with_name(f".{target.name}.{os.getpid()}.new")
    shards: list[dict[str, Any]] = [{}]
    size = 0
    try:
        fresh.mkdir(parents=True)
        index: dict[str, str] = {}
        with reading(folder), progress_bar(f"quantizing {model.id} to {model.bits} bits", total) as advance:
            for name, value in parameters.items():
                if shards[-1] and size + value.nbytes > SHARD:
                    shards.append({})
                    size = 0
                mx.eval(value)
                shards[-1][name] = value
                size += value.nbytes
                advance(value.nbytes)
        for number, shard in enumerate(shards, 1):
            file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            mx.save_safetensors(str(fresh / file), shard, metadata={"format": "mlx"})
            index |= dict.fromkeys(shard, file)
        if len(shards) > 1:
            listing = {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))}
            (fresh / "model.safetensors.index.json").write_text(json.dumps(listing, indent=2) + "\n")
        packed = {"quantization": settings["quantization"], "quantization_config": settings["quantization"]}
        written = written_config(folder) | packed
        (fresh / "config.json").write_text(json.dumps(written, indent=2) + "\n")
        copy_files(folder, fresh, (*TOKENIZER_FILES, "generation_config.json", "README.md", "LICENSE*"))
        with contextlib.suppress(OSError):  # another process was as quick: what it wrote is the same
            fresh.replace(target)
    except OSError as error:
        raise AzrError(
            f"the quantized form of {model.id} cannot be kept in {target.parent}: {error.strerror}"
        ) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


# -- small things -------------------------------------------------------------------------------------------


def copy_files(source: Path, target: Path, patterns: tuple[str, ...]) -> list[str]:
    """Copy the files of `source` that match; returns their names. Links are followed (the hub's cache is links)."""
    names = sorted({path.name for pattern in patterns for path in source.glob(pattern) if path.is_file()})
    for name in names:
        shutil.copyfile(source / name, target / name)
    return names


def check_room(target: Path, wanted: int, what: str) -> None:
    """Raise AzrError unless the disk of `target` holds `wanted` bytes and a little more."""
    free = free_bytes(target)
    if wanted and wanted * 1.02 + 50e6 > free:
        raise AzrError(f"{what} needs {wanted / 1e9:.1f} GB, the disk of {target} has {free / 1e9:.1f} GB free")


def free_bytes(path: Path) -> int:
    """Free bytes of the disk on which `path` is, or would be."""
    place = path.expanduser().absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn MLX's complaint about a weight file into one line."""
    try:
        yield
    except RuntimeError as error:
        raise DamagedWeights(f"the weights in {folder} cannot be read: {first_line(error)}") from None


@contextlib.contextmanager
def progress_bar(label: str, total: int, *, quiet: bool = False) -> Iterator[Any]:
    """A progress bar in bytes on a terminal, elsewhere one line (none if quiet); yields what tells it of progress."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        if not quiet:
            sys.stderr.write(f"{label}: {total / 1e9:.1f} GB, once\n")
        yield lambda count: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=total)
        yield lambda count: progress.advance(task, count)


class _Nowhere:
    """A text stream that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
