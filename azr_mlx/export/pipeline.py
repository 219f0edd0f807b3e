"""From a checkpoint to what other tools load: an MLX adapter, a PEFT adapter, a fused Hugging Face model.

Everything is written into a hidden folder beside the target, loaded again, compared with the running policy on real
prompts, and only then given its name. A format that lost the adapter's effect is refused: an update of reinforcement
learning is small, and half precision can round it away (quantizing it again always does, so no format does that).

    OUT/mlx    adapters.safetensors, adapter_config.json                  mlx_lm.generate --adapter-path
    OUT/peft   adapter_model.safetensors, adapter_config.json, tokenizer  peft.PeftModel.from_pretrained
    OUT/hf     weights with the adapter added, config, tokenizer          AutoModelForCausalLM.from_pretrained
    OUT/base   the same without the adapter: what it was trained on, for exact use with OUT/peft

Each folder has a model card (README.md) and manifest.json: where it comes from, what the check found, sha256 of files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from azr_mlx import __version__, config, paths, types
from azr_mlx.errors import AzrError, UsageError
from azr_mlx.model import device, weights
from azr_mlx.run import checkpoint
from azr_mlx.run.folder import RunFolder

FORMATS = ("mlx", "peft", "hf", "base")
DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
KEPT = 0.99  # least cosine between the logit change of the running policy and that of what was written
PROMPTS, PROMPT_TOKENS, CONTINUED = 8, 256, 32  # rows of the check, tokens of each, of which the policy's own
PIECE = 64 * 10**6  # bytes of a matrix that are computed at once when weights are written
HEAD_ROWS = 32  # positions whose logits are held at once

# For adapters that come without a run, and so without tasks.
TEXTS = (
    "def f(items):\n    total = 0\n    for item in items:\n        total += item\n    return total\n\nf([1, 2, 3]) ==",
    "Write a Python function that returns the longest word of a sentence.\n```python\n",
    "```python\ndef f(text: str) -> str:\n    return ''.join(sorted(set(text)))\n```\nWhat is f('hello')? It is",
    "The sum of the first ten odd numbers is",
)


@dataclass(frozen=True)
class Source:
    """What is exported: a checkpoint folder, the settings it was trained with, and the run it belongs to, if any."""

    folder: Path
    settings: config.Config
    run: Path | None
    step: int | None

    @property
    def name(self) -> str:
        return f"{self.run.name}-{self.folder.name}" if self.run else self.folder.name


@dataclass(frozen=True)
class Check:
    """How far what was written, loaded again, is from the running policy, both computed in float32.

    `kl` is the mean over positions of KL(policy || written) in nats; `kl_as_run` the same for the policy in the dtype
    in which it runs (None when that is float32). `cosine` compares the change of the logits that the adapter makes, in
    the policy and in what was written; None when the adapter changes nothing. `effect` is the root mean square of that
    change, `largest` the largest difference of a logit, `agree` the share of positions with the same likeliest token.
    """

    prompts: int
    tokens: int
    kl: float
    kl_as_run: float | None
    largest: float
    cosine: float | None
    effect: float
    agree: float

    @property
    def good(self) -> bool:
        """Whether what was written is the policy. Without an effect to keep, the KL alone decides."""
        if not math.isfinite(self.kl + self.largest):
            return False
        return self.cosine >= KEPT if self.cosine is not None else self.kl < 1e-2

    def words(self) -> str:
        kept = "no effect to keep" if self.cosine is None else f"effect kept {self.cosine:.4f}"
        return f"KL {self.kl:.1e}/token, largest logit difference {self.largest:.1e}, {kept}"


@dataclass(frozen=True)
class Written:
    """One exported folder."""

    format: str
    folder: Path
    size: int
    check: Check


# -- what to export -----------------------------------------------------------------------------------------


def find(path: str | Path) -> Source:
    """The checkpoint of a run folder (the newest), a step folder, or an adapter folder that mlx_lm wrote.

    Raises UsageError or AzrError with one line.
    """
    folder = paths.local(path) or paths.local(Path("checkpoints") / path)
    if folder is None or not folder.is_dir():
        raise UsageError(f"there is no run or checkpoint {path}")
    folder = folder.resolve()
    run = folder if (folder / "config.yaml").is_file() else None
    if run is not None or (RunFolder(folder).checkpoints() and not (folder / "adapters.safetensors").is_file()):
        newest = RunFolder(folder).latest()
        if newest is None:
            raise UsageError(
                f"{path} has no checkpoint yet: train it first (a run keeps one every checkpoint.every steps)"
            )
        folder = newest
    elif (folder.parent / "config.yaml").is_file():
        run = folder.parent
    if not (folder / "adapters.safetensors").is_file():
        raise UsageError(f"{path} is neither a run nor a checkpoint: it has no adapters.safetensors")
    weights.tensors(folder / "adapters.safetensors")
    step: int | None = None
    if (folder / "state.json").is_file():
        step = int(checkpoint.read_state(folder)["step"])
    return Source(folder, _settings(folder, run), run, step)


def _settings(folder: Path, run: Path | None) -> config.Config:
    """The run's settings, with model and LoRA as the adapter itself says. Raises AzrError when they contradict."""
    path = folder / "adapter_config.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        lora = described["lora_parameters"]
        found = config.LoraConfig(
            rank=int(lora["rank"]), scale=float(lora["scale"]), layers=int(described["num_layers"]),
            keys=tuple(lora.get("keys") or ()),
        )  # fmt: skip
        kind = described.get("fine_tune_type", "lora")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AzrError(f"{path} cannot be read as an adapter's description: {weights.first_line(error)}") from None
    if kind != "lora":
        raise UsageError(f"{folder} holds {kind} weights: only LoRA adapters are exported")
    settings = config.load(run / "config.yaml") if run else config.Config()
    named = described.get("model")
    if run is None:
        if not named:
            raise UsageError(f'{path} does not say which model the adapter belongs to: add "model"')
        return replace(settings, model=replace(settings.model, id=str(named), style="compact"), lora=found)
    if named and named != settings.model.id:
        raise AzrError(f"{folder} was trained on {named}, but its run's config.yaml says {settings.model.id}")
    return replace(settings, lora=found)


def load(source: Source) -> Any:
    """The running policy of a checkpoint. Raises AzrError when the adapter does not fit its model."""
    from azr_mlx.model.policy import Policy

    s = source.settings
    try:
        return Policy.load(s.model, s.lora, s.optim, s.sampling, s.loss, seed=s.seed, adapter=source.folder)
    except ValueError as error:
        raise AzrError(
            f"{source.folder} belongs to another base model than {s.model.id}, or to other LoRA settings: "
            f"{weights.first_line(error)}"
        ) from None


# -- the whole of it ----------------------------------------------------------------------------------------


def default_target(source: Source) -> Path:
    """exports/RUN-STEP, below the working folder."""
    return Path("exports") / source.name


def export(
    source: Source,
    formats: Sequence[str],
    target: Path,
    dtype: str = "f32",
    *,
    base: str = "",
    dry_run: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[Written]:
    """Write `formats` of a checkpoint into the new folder `target`, whole or not at all; returns what was written.

    dtype: of the fused weights, a key of DTYPES. base: name of the full-precision model, when it is not what the
    model's card says. dry_run: load, check sizes, say what would be done, write nothing.
    Raises UsageError (existing target, unknown format), AzrError (disk, damaged files, an effect that was lost).
    """
    for name in formats:
        if name not in FORMATS:
            raise UsageError(f"--format {name}: the formats are {', '.join(FORMATS)}")
    if dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype}: one of {', '.join(DTYPES)}")
    target = target.expanduser().absolute()
    if target.exists() or target.is_symlink():
        raise UsageError(f"{target} exists: name another folder with --out, or remove it")
    policy = load(source)
    if not policy.backbone.plain and set(formats) - {"mlx"}:
        kind = policy.settings.get("model_type")
        raise UsageError(f"{kind} can only be exported as an MLX adapter so far: --format mlx")
    origin = base or base_model(policy)
    sizes = {name: _size(policy, name, dtype) for name in formats}
    say(f"{source.folder} -> {target}")
    for name in formats:
        say(f"{name:<5} {sizes[name] / 1e6:10.1f} MB  {target / name}")
    _check_room(target, sum(sizes.values()), dtype, formats)
    if dry_run:
        return []
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)  # of an export that was killed
    try:
        fresh.mkdir(parents=True)
        for name in formats:
            folder = fresh / name
            folder.mkdir()
            if name == "mlx":
                policy.save_adapter(folder)
            elif name == "peft":
                write_peft(policy, folder, origin)
            else:
                write_fused(policy, folder, dtype, adapters=name == "hf")
        checks = measure(policy, rows(policy, source), {name: fresh / name for name in formats})
        _refuse_lost(checks, dtype)
        for name in formats:
            facts = _facts(source, policy, name, dtype, origin, checks[name])
            (fresh / name / "README.md").write_text(card(facts), encoding="utf-8")
            facts["files"] = {
                path.name: {"bytes": path.stat().st_size, "sha256": _hash(path)}
                for path in sorted((fresh / name).iterdir())
            }
            (fresh / name / "manifest.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
            _sync(fresh / name)
        fresh.replace(target)
    except OSError as error:
        raise AzrError(f"{target} cannot be written: {error.strerror or error}; nothing was left behind") from None
    except RuntimeError as error:  # what MLX raises when a file cannot be written
        raise AzrError(f"the export failed: {weights.first_line(error)}; nothing was left behind") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    done = []
    for name in formats:
        size = sum(path.stat().st_size for path in (target / name).iterdir())
        done.append(Written(name, target / name, size, checks[name]))
    return done


def _refuse_lost(checks: Mapping[str, Check], dtype: str) -> None:
    """Raise one line that says what was lost and what keeps it, when a format is not the policy."""
    lost = {name: found for name, found in checks.items() if not found.good}
    if not lost:
        return
    name, found = next(iter(lost.items()))
    what = f"{name} in {DTYPES[dtype]}" if name in ("hf", "base") else name
    value = "changes the model" if found.cosine is None else f"keeps {found.cosine:.3f} of the adapter's effect"
    keeping = [f"{other} keeps {c.cosine:.3f}" for other, c in checks.items() if c.good and c.cosine is not None]
    cure = "use --dtype f32, or --format mlx,peft" if name in ("hf", "base") and dtype != "f32" else "use --format mlx"
    raise AzrError(
        f"{what} {value} (cosine {KEPT} is needed, KL {found.kl:.1e} per token): nothing was written. "
        f"{cure}{' (' + ', '.join(keeping) + ')' if keeping else ''}"
    )


def _check_room(target: Path, wanted: int, dtype: str, formats: Sequence[str]) -> None:
    free = weights.free_bytes(target)
    if wanted * 1.02 + 20e6 <= free:
        return
    cure = "name a folder on another disk with --out"
    if set(formats) & {"hf", "base"}:
        cure += (", take --dtype f16" if dtype == "f32" else "") + ", or write adapters only: --format mlx,peft"
    raise AzrError(f"the export needs {wanted / 1e9:.2f} GB, {target.parent} has {free / 1e9:.2f} GB free: {cure}")


def _size(policy: Any, format_: str, dtype: str) -> int:
    """Bytes of weights that a format will hold."""
    from mlx.utils import tree_flatten

    if format_ in ("mlx", "peft"):
        return sum(value.nbytes for _, value in tree_flatten(policy.model.trainable_parameters()))
    return sum(math.prod(one.shape) for one in fused_tensors(policy)) * (4 if dtype == "f32" else 2)


# -- PEFT ---------------------------------------------------------------------------------------------------


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


# -- fused --------------------------------------------------------------------------------------------------


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
    with weights.bar(f"writing {folder.name} in {DTYPES[dtype]}", total, quiet=True) as advance:
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
    settings = json.loads((source / "config.json").read_text(encoding="utf-8"))
    for name in ("quantization", "quantization_config"):
        settings.pop(name, None)
    settings |= weights.settled(source)
    settings.setdefault("architectures", [f"{settings['model_type'].capitalize()}ForCausalLM"])
    settings |= {"torch_dtype": DTYPES[dtype], "dtype": DTYPES[dtype]}
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    if not weights.copy_files(source, folder, ("generation_config.json",)):
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        generation = {name: settings[name] for name in names if settings.get(name) is not None}
        generation["eos_token_id"] = sorted(policy.stop_tokens)
        (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    weights.copy_files(source, folder, ("LICENSE*",))


def write_tokenizer(policy: Any, folder: Path) -> None:
    """The files of the tokenizer and the chat template, reading text as the policy does.

    In the style r1 the policy reads think and answer tags as ordinary text, where the base model has untrained single
    tokens for them (Qwen 3); so those tokens are taken out of the written tokenizer. No other token changes its id.
    """
    from azr_mlx.model.policy import TAGS

    weights.copy_files(policy.folder, folder, weights.TOKENIZER_FILES)
    if policy.config.style != "r1":
        return

    def without(value: Any) -> Any:
        if isinstance(value, list):
            return [without(one) for one in value if _content(one) not in TAGS]
        if isinstance(value, dict):
            return {k: without(one) for k, one in value.items() if k not in TAGS and _content(one) not in TAGS}
        return value

    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        path = folder / name
        if path.is_file():
            described = json.loads(path.read_text(encoding="utf-8"))
            kept = {"added_tokens": without(described.get("added_tokens", []))} if name == "tokenizer.json" else None
            fresh = described | kept if kept is not None else without(described)
            if fresh != described:
                path.write_text(json.dumps(fresh, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _content(value: Any) -> Any:
    """The text of an entry that describes a token, which is the text itself or a mapping."""
    return value.get("content") if isinstance(value, dict) else value if isinstance(value, str) else None


# -- the check ----------------------------------------------------------------------------------------------


def rows(policy: Any, source: Source) -> list[tuple[int, ...]]:
    """Token rows of the check: prompts of the run's own tasks, each continued greedily by the policy."""
    prompts = _prompts(policy, source)
    seed = (source.settings.seed, 0, 0)
    rollouts = policy.sample_all(prompts, 1, seed=seed, max_tokens=CONTINUED, temperature=0.0)
    found = [(*group[0].prompt_tokens, *group[0].completion.tokens)[-PROMPT_TOKENS:] for group in rollouts]
    return [row for row in found if len(row) > 1]


def _prompts(policy: Any, source: Source) -> list[types.Prompt]:
    """Solver prompts of up to PROMPTS tasks of the checkpoint's buffer; fixed texts when there is none."""
    from azr_mlx.executor.rules import ALLOWED_MODULES
    from azr_mlx.selfplay.prompts import make_style
    from azr_mlx.selfplay.task_buffer import read_tasks

    s = source.settings
    path = source.folder / "buffer.jsonl"
    tasks = read_tasks(path) if path.is_file() else []
    if not tasks:
        return [types.Prompt(types.Role.SOLVE, types.Kind.DEDUCTION, text) for text in TEXTS]
    style = make_style(
        s.model.style, seconds=s.executor.wall_seconds, modules=sorted(ALLOWED_MODULES), render=policy.render_chat
    )
    every = max(1, len(tasks) // PROMPTS)
    return [style.solve(task) for task in tasks[::every][:PROMPTS]]


Hidden = list[Any]  # of each row (T, D)
Head = Callable[[Any], Any]  # (T, D) to float32 logits (T, V)


def measure(policy: Any, token_rows: Sequence[Sequence[int]], folders: Mapping[str, Path]) -> dict[str, Check]:
    """Load again what was written and compare it with the running policy, format by format.

    Only hidden states are kept; logits exist for HEAD_ROWS positions at a time, and a fused model is read block by
    block, so that the check of a 7B model needs no second model in memory.
    """
    import mlx.core as mx

    def hidden() -> Hidden:
        found = []
        for row in token_rows:
            found.append(policy.backbone.hidden(mx.array([row]))[0])
            mx.eval(found[-1])
        return found

    head = policy.backbone.logits
    as_run = hidden()
    checks = {}
    with _in_float32(policy) as changed:
        running = hidden() if changed else as_run
        with policy.reference():
            base = hidden()
        for name, folder in folders.items():
            if name in ("mlx", "peft"):
                with _adapters_of(policy, name, folder):
                    written, written_head = hidden(), head
            else:
                written, written_head = _hidden_of(folder, token_rows)
            target = base if name == "base" else running
            found = compare(base, target, written, head, written_head)
            if changed and name != "base":
                found = replace(found, kl_as_run=compare(base, as_run, written, head, written_head).kl)
            checks[name] = found
            del written, written_head
            device.clear_cache()
    return checks


def compare(base: Hidden, running: Hidden, written: Hidden, head: Head, written_head: Head) -> Check:
    """The numbers of a Check from final hidden states: of the model without adapters, of the policy, of the file."""
    import mlx.core as mx

    positions = sum(one.shape[0] for one in running)
    kl = product = ours = theirs = agree = 0.0
    largest, vocabulary = 0.0, 1
    for b, r, w in zip(base, running, written, strict=True):
        for i in range(0, r.shape[0], HEAD_ROWS):
            part = slice(i, i + HEAD_ROWS)
            logits, was, got = head(r[part]), head(b[part]), written_head(w[part])
            vocabulary = logits.shape[-1]
            mine, other = logits - was, got - was
            (log_p, p), (log_q, q) = _distribution(logits), _distribution(got)
            d = log_p - log_q
            # The sum of p d, but nowhere negative: near d = 0 a term is p d^2 / 2, which p d would drown.
            near = 0.5 * p * mx.square(d) * (1 - d / 3 + mx.square(d) / 12)
            terms = mx.where(mx.abs(d) < 0.05, near, p * d + q - p)
            sums = mx.stack([
                terms.sum(), (mine * other).sum(), mx.square(mine).sum(), mx.square(other).sum(),
                (logits.argmax(-1) == got.argmax(-1)).sum().astype(mx.float32), mx.abs(logits - got).max(),
            ]).tolist()  # fmt: skip
            kl, product, ours, theirs, agree = (
                total + more for total, more in zip((kl, product, ours, theirs, agree), sums, strict=False)
            )
            largest = max(largest, sums[5]) if math.isfinite(sums[5]) else math.inf
    cosine = product / math.sqrt(ours * theirs) if ours > 0 and theirs > 0 else None if ours == 0 else 0.0
    return Check(
        prompts=len(running), tokens=positions, kl=max(0.0, kl / positions) if math.isfinite(kl) else math.inf,
        kl_as_run=None, largest=largest, cosine=cosine, effect=math.sqrt(ours / positions / vocabulary),
        agree=agree / positions,
    )  # fmt: skip


def _distribution(logits: Any) -> tuple[Any, Any]:
    """Log-probabilities and probabilities (T, V) with one exponential each: on a CPU those are the work."""
    import mlx.core as mx

    from azr_mlx.model import cpu_kernels

    shifted = logits - logits.max(axis=-1, keepdims=True)
    powers = cpu_kernels.exp(shifted)
    total = powers.sum(axis=-1, keepdims=True)
    return shifted - mx.log(total), powers / total


@contextlib.contextmanager
def _in_float32(policy: Any) -> Iterator[bool]:
    """Within it the policy computes in float32; packed weights stay packed. Yields whether that is a change.

    The numbers of a bfloat16 forward pass differ by more than a small update changes: they would hide it.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_unflatten

    before = tree_flatten(policy.model.parameters())
    floating = {value.dtype for _, value in before if mx.issubdtype(value.dtype, mx.floating)}
    if floating == {mx.float32}:
        yield False
        return
    try:
        weights.cast(policy.model, mx.float32)
        mx.eval(policy.model.parameters())
        yield True
    finally:
        policy.model.update(tree_unflatten(before))


@contextlib.contextmanager
def _adapters_of(policy: Any, format_: str, folder: Path) -> Iterator[None]:
    """Within it the policy has the adapters that an exported folder holds."""
    import mlx.core as mx

    layers = adapted(policy.model)
    kept = {path: (module.lora_a, module.lora_b, module.scale) for path, module in layers.items()}
    described = json.loads((folder / "adapter_config.json").read_text())
    try:
        if format_ == "mlx":
            read: Any = mx.load(str(folder / "adapters.safetensors"))
            for path, module in layers.items():
                module.lora_a, module.lora_b = read[f"{path}.lora_a"], read[f"{path}.lora_b"]
                module.scale = described["lora_parameters"]["scale"]
        else:
            read = mx.load(str(folder / "adapter_model.safetensors"))
            for path, module in layers.items():
                module.lora_a = read[f"base_model.model.{path}.lora_A.weight"].T
                module.lora_b = read[f"base_model.model.{path}.lora_B.weight"].T
                module.scale = described["lora_alpha"] / described["r"]
        yield
    finally:
        for path, (a, b, scale) in kept.items():
            layers[path].lora_a, layers[path].lora_b, layers[path].scale = a, b, scale


def _hidden_of(folder: Path, token_rows: Sequence[Sequence[int]]) -> tuple[Hidden, Head]:
    """Final hidden states of a fused folder, in float32, with one block of it in memory at a time."""
    import mlx.core as mx
    from mlx.utils import tree_map

    from azr_mlx.model.backbone import Backbone

    network, _ = weights.open_lazily(folder)
    weights.cast(network, mx.float32)
    backbone = Backbone(network)

    def forget(module: Any) -> None:
        module.update(tree_map(lambda _: mx.zeros(1), module.parameters()))

    states = [backbone.trunk.embed_tokens(mx.array([row])) for row in token_rows]
    mx.eval(states)
    if "lm_head" in network:
        forget(backbone.trunk.embed_tokens)
    for block in backbone.layers:
        states = [block(state, "causal", None) for state in states]
        mx.eval(states)
        forget(block)
        device.clear_cache()
    states = [backbone.trunk.norm(state)[0] for state in states]
    mx.eval(states)
    return states, backbone.logits


# -- cards, manifests, hub ----------------------------------------------------------------------------------


def base_model(policy: Any) -> str:
    """The full-precision model that a quantized one was made of, as its card says or its name suggests."""
    name = policy.config.id
    if "quantization" not in json.loads((policy.folder / "config.json").read_text(encoding="utf-8")):
        return str(name)
    said = front_matter(policy.folder).get("base_model")
    said = said[0] if isinstance(said, list) and said else said
    if isinstance(said, str) and said:
        return said
    owner, _, plain = name.partition("/")
    stem, dash, suffix = plain.rpartition("-")
    if owner == "mlx-community" and plain.startswith("Qwen") and dash and suffix.lower().endswith("bit"):
        return f"Qwen/{stem.removesuffix('-MLX')}"
    return str(name)


def front_matter(folder: Path) -> dict[str, Any]:
    """The YAML head of a folder's model card; empty when there is none."""
    import yaml

    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
        found = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else None
    except (OSError, IndexError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _facts(source: Source, policy: Any, format_: str, dtype: str, origin: str, check: Check) -> dict[str, Any]:
    """All that manifest.json says but for the files; the card is made of it."""
    s = source.settings
    settings = json.loads((policy.folder / "config.json").read_text(encoding="utf-8"))
    packed = settings.get("quantization") or {
        "group_size": s.model.group_size, "bits": s.model.bits, "mode": s.model.mode
    }  # fmt: skip
    versions = {"azr_mlx": __version__}
    for package in ("mlx", "mlx-lm", "transformers"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    matter = front_matter(policy.folder)
    return {
        "name": source.name,
        "format": format_,
        "dtype": DTYPES[dtype] if format_ in ("hf", "base") else "float32",
        "base_model": origin,
        "trained_on": {
            "model": s.model.id, "revision": s.model.revision or _commit(policy.folder),
            "quantization": {k: packed[k] for k in ("group_size", "bits", "mode") if k in packed},
        },
        "licence": matter.get("license_name") or matter.get("license") or "unknown",
        "licence_link": matter.get("license_link"),
        "style": s.model.style if source.run else None,
        "run": source.run.name if source.run else None,
        "step": source.step,
        "lora": {"rank": s.lora.rank, "scale": s.lora.scale, "layers": s.lora.layers, "keys": list(s.lora.keys)},
        "adapter_sha256": _hash(source.folder / "adapters.safetensors"),
        "metrics": _metrics(source),
        "check": {name: getattr(check, name) for name in Check.__dataclass_fields__},
        "versions": versions,
    }  # fmt: skip


def _commit(folder: Path) -> str | None:
    """The commit of a snapshot in the hub's cache, which is its folder's name."""
    return folder.name if folder.parent.name == "snapshots" else None


def _metrics(source: Source) -> dict[str, float]:
    """Solve rates before and after, and the last step's numbers up to the exported one; empty without a run."""
    if source.run is None:
        return {}
    found: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        from azr_mlx.run.held_out import Score

        scores = json.loads((source.run / "probe.json").read_text())
        newest = RunFolder(source.run).latest()
        if newest is not None and newest.samefile(source.folder):  # `after` is of the run's last policy
            for when in ("before", "after"):
                found[f"probe/mean {when}"] = Score.from_state(scores[when]).mean
    with contextlib.suppress(OSError, ValueError):
        lines = (source.run / "metrics.jsonl").read_text().splitlines()
        table = [json.loads(line) for line in lines if line.strip()]
        mine = [row for row in table if source.step is None or row.get("step", 0) < source.step]
        if mine:
            numbers = {k: v for k, v in mine[-1].items() if isinstance(v, int | float) and not isinstance(v, bool)}
            found |= {k: float(v) for k, v in numbers.items() if k.startswith(("solve", "reward", "probe", "valid"))}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def card(facts: Mapping[str, Any]) -> str:
    """README.md of an exported folder, with the head that the hub reads."""
    import yaml

    format_, origin, on = facts["format"], facts["base_model"], facts["trained_on"]
    remote = origin.count("/") == 1 and not origin.startswith((".", "/", "~", "checkpoints/"))
    head: dict[str, Any] = {
        "library_name": {"mlx": "mlx", "peft": "peft"}.get(format_, "transformers"),
        "pipeline_tag": "text-generation",
        "tags": ["azr", "self-play", "reinforcement-learning", *(["mlx", "lora"] if format_ == "mlx" else [])],
    }
    if remote:
        head["base_model"] = origin
    if facts["licence"] != "unknown":
        head["license"] = facts["licence"]
    packed = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in on["quantization"].items())
    found = facts["check"]
    cosine = "no effect to keep" if found["cosine"] is None else f"{found['cosine']:.5f}"
    rounded = f" ({found['kl_as_run']:.1e} as the policy runs)" if found["kl_as_run"] is not None else ""
    metrics = "".join(f"| {name} | {value:.4g} |\n" for name, value in sorted(facts["metrics"].items()))
    trained = f"run `{facts['run']}`" if facts["run"] else "an adapter folder"
    trained += f", after {facts['step']} steps" if facts["step"] is not None else ""
    blocks = "all blocks" if facts["lora"]["layers"] <= 0 else f"the last {facts['lora']['layers']} blocks"
    what = {
        "mlx": "A LoRA adapter for MLX.",
        "peft": "A LoRA adapter for PEFT.",
        "hf": f"A model with its LoRA adapter added, in {facts['dtype']}.",
        "base": f"The model that the adapters were trained on, without them, in {facts['dtype']}.",
    }[format_]
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# {facts['name']}\n\n{what} "
        "Trained by self-play as in Absolute Zero (arXiv 2505.03335): the model proposes small programs as tasks, "
        "Python checks them, the model solves them, and both roles learn from the outcome.\n\n"
        f"- Base model: {origin}, licence: {facts['licence']}"
        f"{' (' + facts['licence_link'] + ')' if facts['licence_link'] else ''}\n"
        f"- Trained on: {on['model']}{' at ' + on['revision'] if on['revision'] else ''}, quantized ({packed})\n"
        f"- Trained in: {trained}, with azr_mlx {facts['versions']['azr_mlx']}\n"
        f"- LoRA: rank {facts['lora']['rank']}, scale {facts['lora']['scale']:g} "
        f"(alpha {facts['lora']['scale'] * facts['lora']['rank']:g}), "
        f"{blocks}\n\n"
        f"## How to load it\n\n{_usage(format_, origin, on)}\n{_caveats(facts)}"
        "## Checked at export\n\nThe files were loaded again and compared with the trained policy, in float32, "
        f"on {found['prompts']} of its prompts ({found['tokens']} tokens):\n\n| | |\n| --- | --- |\n"
        f"| KL per token (nats) | {found['kl']:.1e}{rounded} |\n"
        f"| largest difference of a logit | {found['largest']:.1e} |\n"
        f"| cosine of the logit change | {cosine} |\n| same likeliest token | {100 * found['agree']:.1f} % |\n\n"
        + (f"## Metrics\n\n| | |\n| --- | --- |\n{metrics}\n" if metrics else "")
        + "manifest.json holds these numbers and the sha256 of every file.\n"
    )


def _usage(format_: str, origin: str, on: Mapping[str, Any]) -> str:
    quantized = on["quantization"]
    if format_ == "mlx":
        made = (
            ""
            if "/" in origin and origin != on["model"]
            else f"If `{on['model']}` is not quantized, make the model that the adapter was trained on first:\n\n"
            f"```sh\npython -m mlx_lm convert --model {on['model']} -q --q-bits {quantized.get('bits', 4)} "
            f"--q-group-size {quantized.get('group_size', 64)} --mlx-path BASE\n```\n\n"
        )
        return (
            f"```sh\nmlx_lm.generate --model {on['model']} --adapter-path . --prompt 'def f(a):'\n"
            f"mlx_lm.server --model {on['model']} --adapter-path .\n```\n\n{made}"
        )
    if format_ == "peft":
        return (
            "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'base = AutoModelForCausalLM.from_pretrained("{origin}", device_map="auto")\n'
            'model = PeftModel.from_pretrained(base, ".")\ntokenizer = AutoTokenizer.from_pretrained(".")\n```\n'
        )
    return (
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained(".", dtype="auto", device_map="auto")\n'
        'tokenizer = AutoTokenizer.from_pretrained(".")\n'
        'inputs = tokenizer("def f(a):", return_tensors="pt").to(model.device)\n'
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0]))\n```\n\n"
        "The same in MLX: `mlx_lm.generate --model . --prompt 'def f(a):'`. Quantizing this model again would round "
        "the update away; on a Mac use the MLX adapter on the quantized base.\n"
    )


def _caveats(facts: Mapping[str, Any]) -> str:
    lines = []
    if facts["format"] == "peft":
        lines.append(
            "The adapter was trained on the quantized model. On the full-precision base it is nearly, not exactly, the "
            "policy that was trained; the format `base` of the export is the exact counterpart."
        )
    if facts["style"] == "r1":
        lines.append(
            "The model was trained to read `<think>` and `<answer>` tags as ordinary text"
            + (": keep the tokenizer's own think tokens out of prompts." if facts["format"] == "mlx"
               else "; the tokenizer in this folder does so.")
        )  # fmt: skip
    return "".join(f"{line}\n\n" for line in lines)


def repositories(repo: str, formats: Sequence[str]) -> dict[str, str]:
    """The repository of each format: REPO itself for one format, REPO-mlx and so on for several."""
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise UsageError(f"--push {repo}: write it as OWNER/NAME")
    return {name: repo if len(formats) == 1 else f"{repo}-{name}" for name in formats}


def check_hub() -> None:
    """Raise one line unless something could be uploaded: asked before the work, not after it."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise UsageError("--push needs the hub, but HF_HUB_OFFLINE is set")
    if get_token() is None:
        raise UsageError("--push needs a login: run hf auth login, or set HF_TOKEN")


def push(written: Sequence[Written], repo: str, *, public: bool = False, say: Callable[[str], None]) -> None:
    """Upload exported folders, private unless told otherwise. Raises AzrError; the folders stay."""
    from huggingface_hub import HfApi

    names = repositories(repo, [one.format for one in written])
    for one in written:
        name = names[one.format]
        try:
            HfApi().create_repo(name, private=not public, exist_ok=True)
            HfApi().upload_folder(repo_id=name, folder_path=one.folder, commit_message=f"azr export, {one.format}")
        except (OSError, ValueError) as error:  # what the hub's client raises derives from these
            raise AzrError(
                f"{one.folder} is written, but not uploaded to {name}: {weights.first_line(error)}; "
                f"try again with hf upload {name} {one.folder}"
            ) from None
        say(f"uploaded {one.format} to https://huggingface.co/{name}")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
