"""The check of an export: what was written is loaded again and compared with the running policy on real prompts.

An update of reinforcement learning is small, and half precision can round it away; so what decides is the share of the
adapter's effect that is left, not a distance of weights.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from azr_mlx import types
from azr_mlx.export.check import Check, Foreign
from azr_mlx.export.gguf import read_adapter, read_tensors
from azr_mlx.export.peft import adapted
from azr_mlx.export.source import AdapterSource
from azr_mlx.model import device, weights
from azr_mlx.model.adapter_config import read_adapter_config

PROMPTS, PROMPT_TOKENS, CONTINUED = 8, 256, 32  # rows of the check, tokens of each, of which the policy's own
HEAD_ROWS = 32  # positions whose logits are held at once
# Of the memory that MLX does not hold, what the whole model may take there. Here blocks are read one by one.
FOREIGN_SHARE = 0.5

# For adapters that come without a run, and so without tasks.
TEXTS = (
    "def f(items):\n    total = 0\n    for item in items:\n        total += item\n    return total\n\nf([1, 2, 3]) ==",
    "Write a Python function that returns the longest word of a sentence.\n```python\n",
    "```python\ndef f(text: str) -> str:\n    return ''.join(sorted(set(text)))\n```\nWhat is f('hello')? It is",
    "The sum of the first ten odd numbers is",
)

Hidden = list[Any]  # of each row (T, D)
Head = Callable[[Any], Any]  # (T, D) to float32 logits (T, V)


def check_rows(policy: Any, source: AdapterSource) -> list[tuple[int, ...]]:
    """Token rows of the check: prompts of the run's own tasks, each continued greedily by the policy."""
    prompts = _prompts(policy, source)
    seed = (source.settings.seed, 0, 0)
    rollouts = policy.sample_all(prompts, 1, seed=seed, max_tokens=CONTINUED, temperature=0.0)
    found = [(*group[0].prompt_tokens, *group[0].completion.tokens)[-PROMPT_TOKENS:] for group in rollouts]
    return [row for row in found if len(row) > 1]


def _prompts(policy: Any, source: AdapterSource) -> list[types.Prompt]:
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


def check_folders(policy: Any, token_rows: Sequence[Sequence[int]], folders: Mapping[str, Path]) -> dict[str, Check]:
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
            elif name == "gguf":
                # Two files: the adapter is the easier one to keep, so the whole model is what the check is about.
                with _adapters_of(policy, name, folder):
                    alone = check_states(base, running, hidden(), head, head)
                if not alone.good:
                    checks[name] = alone
                    continue
                written, written_head = _hidden_of_gguf(policy, folder, token_rows)
            else:
                written, written_head = _hidden_of(folder, token_rows)
            target = base if name == "base" else running
            found = check_states(base, target, written, head, written_head)
            if changed and name != "base":
                found = replace(found, kl_as_run=check_states(base, as_run, written, head, written_head).kl)
            if name in ("hf", "base"):
                found = replace(found, foreign=in_transformers(folder, token_rows, written, written_head))
            checks[name] = found
            del written, written_head
            device.clear_cache()
    return checks


def check_states(base: Hidden, running: Hidden, written: Hidden, head: Head, written_head: Head) -> Check:
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


def in_transformers(folder: Path, token_rows: Sequence[Sequence[int]], written: Hidden, head: Head) -> Foreign | str:
    """A written model in transformers, against our hidden states of it; in words why there is no such comparison."""
    import mlx.core as mx

    ours_only = "compared with this package's own implementation only"
    if importlib.util.find_spec("torch") is None:
        return f"{ours_only}: torch is not installed, so that transformers cannot compute"
    size = sum(path.stat().st_size for path in folder.glob("model*.safetensors"))
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    needed = size * (1 if settings["dtype"] == "float32" else 2)
    if needed > FOREIGN_SHARE * device.spare_memory():
        return f"{ours_only}: the model in float32 takes {needed / 1e9:.1f} GB more than transformers is given"
    import torch
    import transformers

    name = f"transformers {transformers.__version__}"
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    except (ImportError, OSError, ValueError, KeyError, RuntimeError) as error:
        return f"{ours_only}: {name} cannot load it: {weights.first_line(error)}"
    positions, kl, agree, largest = 0, 0.0, 0.0, 0.0
    for row, states in zip(token_rows, written, strict=True):
        with torch.no_grad():
            logits = theirs(torch.tensor([list(row)])).logits[0]
        for i in range(0, len(row), HEAD_ROWS):
            ours, other = head(states[i : i + HEAD_ROWS]), mx.array(logits[i : i + HEAD_ROWS].numpy())
            (log_p, p), (log_q, q) = _distribution(ours), _distribution(other)
            terms = p * (log_p - log_q) + q - p
            same = (ours.argmax(-1) == other.argmax(-1)).sum()
            sums = mx.stack([terms.sum(), same.astype(mx.float32), mx.abs(ours - other).max()]).tolist()
            kl, agree, largest = kl + sums[0], agree + sums[1], max(largest, sums[2])
            positions += ours.shape[0]
    return Foreign(name, max(0.0, kl / positions), largest, agree / positions)


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
    try:
        if format_ == "mlx":
            read: Any = mx.load(str(folder / "adapters.safetensors"))
            scale = read_adapter_config(folder).lora.scale
            for path, module in layers.items():
                module.lora_a, module.lora_b = read[f"{path}.lora_a"], read[f"{path}.lora_b"]
                module.scale = scale
        elif format_ == "gguf":
            [file] = folder.glob("*-lora.gguf")
            matrices, scale = read_adapter(policy, file)
            for path, module in layers.items():
                a, b = matrices[path]
                module.lora_a, module.lora_b, module.scale = mx.array(a.T), mx.array(b.T), scale
        else:
            read = mx.load(str(folder / "adapter_model.safetensors"))
            described = json.loads((folder / "adapter_config.json").read_text())
            scale = described["lora_alpha"] / described["r"]
            for path, module in layers.items():
                module.lora_a = read[f"base_model.model.{path}.lora_A.weight"].T
                module.lora_b = read[f"base_model.model.{path}.lora_B.weight"].T
                module.scale = scale
        yield
    finally:
        for path, (a, b, scale) in kept.items():
            layers[path].lora_a, layers[path].lora_b, layers[path].scale = a, b, scale


def _hidden_of(folder: Path, token_rows: Sequence[Sequence[int]]) -> tuple[Hidden, Head]:
    """Final hidden states of a fused folder, in float32, with one block of it in memory at a time."""
    import mlx.core as mx

    network, _ = weights.open_lazily(folder)
    weights.cast(network, mx.float32)
    return _block_by_block(network, token_rows)


def _hidden_of_gguf(policy: Any, folder: Path, token_rows: Sequence[Sequence[int]]) -> tuple[Hidden, Head]:
    """The same of a GGUF file, whose tensors are read when their block is computed."""
    import mlx.core as mx

    [file] = (path for path in folder.glob("*.gguf") if not path.name.endswith("-lora.gguf"))
    network = type(policy.model)(policy.model.args)

    def fill(prefix: str) -> None:
        tensors = read_tensors(policy, file, prefix)
        network.load_weights([(name, mx.array(values)) for name, values in tensors], strict=False)

    return _block_by_block(network, token_rows, fill)


def _block_by_block(
    network: Any, token_rows: Sequence[Sequence[int]], fill: Callable[[str], None] = lambda prefix: None
) -> tuple[Hidden, Head]:
    """Final hidden states, forgetting each block's weights after use. `fill` is told what is needed next."""
    import mlx.core as mx
    from mlx.utils import tree_map

    from azr_mlx.model.backbone import Backbone

    backbone = Backbone(network)

    def forget(module: Any) -> None:
        module.update(tree_map(lambda _: mx.zeros(1), module.parameters()))

    fill("model.embed_tokens.")
    states = [backbone.trunk.embed_tokens(mx.array([row])) for row in token_rows]
    mx.eval(states)
    if "lm_head" in network:
        forget(backbone.trunk.embed_tokens)
    for i, block in enumerate(backbone.layers):
        fill(f"model.layers.{i}.")
        states = [block(state, "causal", None) for state in states]
        mx.eval(states)
        forget(block)
        device.clear_cache()
    fill("model.norm.")
    fill("lm_head.")
    states = [backbone.trunk.norm(state)[0] for state in states]
    mx.eval(states)
    return states, backbone.logits
