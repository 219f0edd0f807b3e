"""Memory of a step, counted from what the sampler, the loss and the policy do.

`sampler` bounds keys and values; `loss` keeps the inputs of all blocks and one block's temporaries (or, kept, all of
them) and a few rows of logits; `policy` holds adapters, two moments and, on a CPU, a second set of projections with the
adapters added. What the loss holds is counted in model/held.py; `benchmarks/speed/memory.py` shows prediction beside
measurement. What is said about a GPU is derived from the same counts and has not been measured.

Sizes are bytes. B rows, P prompt tokens, K completion tokens, T tokens of a pass, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from azr_mlx import config
from azr_mlx.model.held import AUTO_SHARES, OPTIONS, Arrays, Keep, Pass, Sizes, activation_bytes, block_bytes
from azr_mlx.model.limits import CACHE_STEP, KEPT_LENGTH, PREFILL_TOKENS, QUERY_BLOCK, cache_limit
from azr_mlx.planner.machine import Machine
from azr_mlx.planner.shapes import Shape, adapted_parameters, adapter_parameters
from azr_mlx.planner.workload import Workload, other_workloads, step_workloads
from azr_mlx.types import GB

# Arrays of a block that are alive at the peak of a prefill (held.Arrays).
PREFILL: Arrays = {"width": 7.5, "gate": 3.8, "queries": 4.2, "keys": 0.0, "rank": 0.0, "scores": 2.5}
DRAW_ARRAYS = 2.5  # (B, V) arrays while tokens are drawn
STEP_ARRAYS = 3  # gradient, its scaled copy and the new parameters and moments of an optimizer step

PYTHON_BYTES = 600 * 10**6  # interpreter, libraries and tokenizer, without what MLX holds
WORKER_BYTES = 85 * 10**6  # two clean processes, their guards and a small program of one executor worker
PREFIX_TOKENS = 512  # instructions that the prompts of a role and kind share and the sampler remembers


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes. Sampling and learning take turns, so the peak is what stays plus the larger of the two."""

    weights: int
    adapters: int  # parameters and both moments
    merged: int  # projections with the adapters added, CPU only
    caches: int  # keys and values of the widest batch
    sampling: int  # beside them: prefill, growth of the cache, logits
    gradients: int
    activations: int  # inputs of all blocks, a block's temporaries (all blocks' when kept), the head
    buffers: int  # freed memory that MLX keeps, and remembered prefixes
    children: int  # executor and Python
    width: int  # rows of the widest batch
    columns: int  # tokens that each of them has room for
    token_bytes: int
    pass_tokens: int  # tokens of the largest micro-batch

    @property
    def while_sampling(self) -> int:
        return self.caches + self.sampling

    @property
    def while_learning(self) -> int:
        return self.gradients + self.activations

    @property
    def device_peak(self) -> int:
        """What MLX holds at most: comparable to mx.get_peak_memory()."""
        return self.weights + self.adapters + self.merged + max(self.while_sampling, self.while_learning)

    @property
    def total(self) -> int:
        return self.device_peak + self.buffers + self.children


def plan_memory(
    settings: config.Config, shape: Shape, machine: Machine, work: Sequence[Workload] | None = None
) -> MemoryPlan:
    """Memory of a step whose rollouts are all as long as they may be (or those of `work`)."""
    work = (*step_workloads(settings), *other_workloads(settings)) if work is None else work
    act = 4 if settings.model.dtype == "float32" or not machine.packed else 2
    keys = token_bytes(settings, shape, machine)
    adapter = adapter_parameters(settings.lora, shape)
    sizes = sizes_of(settings, shape, machine)
    caches = sampling = width = columns = 0
    for one in work:
        rows = rows_together(settings.sampling, one, keys)
        length = _columns(one.prompt + one.tokens)
        cache = rows * length * keys
        # A prefill computes each prompt once, then forks it: both copies are there, and the pass's temporaries before.
        distinct = min(-(-rows // one.group), max(1, PREFILL_TOKENS // one.prompt))
        tokens = min(PREFILL_TOKENS, distinct * one.prompt)
        own = distinct * _columns(one.prompt) * keys
        scores = distinct * min(one.prompt, QUERY_BLOCK) * one.prompt
        block = block_bytes(PREFILL, sizes, tokens, scores, 0, act, 0 if machine.packed else 4)
        # One layer's cache is copied when it grows, if it has to; logits, or a block's temporaries, come and go.
        grows = cache // shape.layers if length > _columns(one.prompt) else 0
        step = block_bytes(PREFILL, sizes, rows, rows * length, 0, act, act)
        beside = max(grows, DRAW_ARRAYS * 4 * rows * shape.vocabulary, step)
        fork = 2 * own / shape.layers if one.group > 1 else 0  # layer by layer, the old one leaves when it is copied
        beside = max(beside, own + block - cache, fork + rows * _columns(one.prompt) * keys - cache)
        if cache + beside > caches + sampling:
            caches, sampling, width, columns = cache, int(beside), rows, length
    gradients, activations, pass_tokens = _learning(settings, shape, machine, work, adapter)
    kinds = len(settings.played_kinds)
    buffers = 0
    if machine.kind == "metal":
        buffers = cache_limit(machine.memory)
    buffers += 2 * kinds * min(PREFIX_TOKENS, settings.sampling.prompt_tokens) * keys
    workers = settings.executor.workers or machine.cores
    merged = 0 if machine.packed else 4 * adapted_parameters(settings.lora, shape)
    return MemoryPlan(
        weights=weight_bytes(settings.model, shape, machine), adapters=3 * 4 * adapter, merged=merged, caches=caches,
        sampling=sampling, gradients=gradients, activations=activations, buffers=buffers,
        children=PYTHON_BYTES + workers * WORKER_BYTES + settings.executor.memory_mb * 2**20,
        width=width, columns=columns, token_bytes=keys, pass_tokens=pass_tokens,
    )  # fmt: skip


def _learning(
    settings: config.Config, shape: Shape, machine: Machine, work: Sequence[Workload], adapter: int
) -> tuple[int, int, int]:
    """(gradients, activations, tokens of the largest micro-batch) of an update."""
    budget = settings.optim.micro_batch_tokens
    trained = [one for one in work if one.trained]
    activations = pass_tokens = 0
    several = False
    longest = 1 << 62 if machine.packed else KEPT_LENGTH
    sizes, keep = sizes_of(settings, shape, machine), kept(settings, shape, machine)
    for shared in (False, True):
        # Rows that share a prompt go into passes of their own (packing.micro_batches).
        alike = [one for one in trained if (one.group > 1) == shared]
        pack = _pack_shared if shared else _pack_apart
        packs = [pack(one, budget, longest) for one in alike]
        total = sum(
            _pack_shared(one, 1 << 62, longest)[0] if shared else one.rows * (one.prompt + one.tokens - 1)
            for one in alike
        )
        several = several or total > budget or activations > 0 < total
        for tokens, scores, completion in packs:
            # Shorter rows may fill a pass that the longest ones leave room in.
            tokens = max(tokens, min(budget, total))
            peak = activation_bytes(sizes, Pass(int(tokens), scores, completion, masked=shared), keep)
            activations, pass_tokens = max(activations, peak), max(pass_tokens, tokens)
    if not activations:
        return 0, 0, 0
    gradients = (2 if several else 1) * 4 * adapter
    # The optimizer's step comes when no activations are left.
    return max(gradients, STEP_ARRAYS * 4 * adapter - activations), activations, pass_tokens


def _pack_apart(one: Workload, budget: int, longest: int) -> tuple[int, float, int]:
    """(tokens, attention weights of one head, completion tokens) of the fullest micro-batch of rows apart."""
    length = one.prompt + one.tokens - 1
    rows = min(one.rows, max(1, budget // (length + 1)))
    return rows * length, rows * held_weights(length, length, True, longest), rows * one.tokens


def _pack_shared(one: Workload, budget: int, longest: int) -> tuple[int, float, int]:
    """The same for rows that share prompts: as many whole or partial groups as the budget takes."""
    prompts = rows = 0
    while rows < one.rows:
        new = rows % one.group == 0
        if rows and (prompts + new) * one.prompt + (rows + 1) * one.tokens > budget:
            break
        prompts, rows = prompts + new, rows + 1
    own = max(1, one.tokens - 1)
    scores = rows * held_weights(own, one.prompt + own, False, longest)
    scores += prompts * held_weights(one.prompt, one.prompt, True, longest)
    return prompts * one.prompt + rows * own, scores, rows * one.tokens


def held_weights(length: int, span: int, causal: bool, longest: int) -> float:
    """Attention weights of one head that a row of `length` queries and `span` keys holds for its gradient."""
    if length > longest:
        return 0
    return length * (span - (max(0, length - QUERY_BLOCK) / 2 if causal else 0))


def sizes_of(settings: config.Config, shape: Shape, machine: Machine) -> Sizes:
    """The numbers of a block, for `activation_bytes`."""
    last = shape.linears()[-1].path
    adapted = [one for one in shape.linears() if not settings.lora.keys or one.path in settings.lora.keys]
    act = 4 if settings.model.dtype == "float32" or not machine.packed else 2
    return Sizes(
        shape.layers, shape.width, shape.gate, shape.queries, shape.keys, shape.heads, settings.lora.rank,
        sum(one.outputs for one in adapted if one.path != last), shape.vocabulary, act, machine.packed,
    )  # fmt: skip


def kept(settings: config.Config, shape: Shape, machine: Machine) -> Keep:
    """What an update keeps of its forward passes: as told, or (auto) the most that fits."""
    said = OPTIONS.get(settings.optim.checkpoint_layers)
    if said is not None:
        return said
    for keep, share in AUTO_SHARES.items():
        option = next(word for word, meant in OPTIONS.items() if meant is keep)
        tried = config.with_values(settings, {"optim.checkpoint_layers": option})
        if plan_memory(tried, shape, machine).total <= share * machine.room:
            return keep
    return Keep.INPUTS


def weight_bytes(model: config.ModelConfig, shape: Shape, machine: Machine) -> int:
    """Bytes of the base model: packed with its scales and biases on a GPU, float32 on a CPU."""
    if not machine.packed:
        return 4 * shape.parameters
    act = 4 if model.dtype == "float32" else 2
    said: Mapping[str, Any] = shape.quantized or {
        "bits": model.bits, "group_size": model.group_size, "mode": model.mode
    }  # fmt: skip

    def matrix(path: str, inputs: int, outputs: int) -> int:
        own = said.get(path, said)
        if own is False or inputs % int((own if isinstance(own, Mapping) else said)["group_size"]):
            return inputs * outputs * act  # mlx_lm leaves such a matrix as it is
        own = own if isinstance(own, Mapping) else said
        groups = inputs // int(own["group_size"])
        # An affine group has a scale and a bias; the others one scale of eight bits.
        scales = 2 * act if own.get("mode", "affine") == "affine" else 1
        return outputs * (inputs * int(own["bits"]) // 8 + groups * scales)

    total = matrix("model.embed_tokens", shape.width, shape.vocabulary)
    if not shape.tied:
        total += matrix("lm_head", shape.width, shape.vocabulary)
    for i in range(shape.layers):
        for one in shape.linears():
            total += matrix(f"model.layers.{i}.{one.path}", one.inputs, one.outputs)
    matrices = shape.matrices + (1 if shape.tied else 2) * shape.vocabulary * shape.width
    return total + act * (shape.parameters - matrices)


def token_bytes(settings: config.Config, shape: Shape, machine: Machine) -> int:
    """Keys and values of one token in all layers."""
    act = 4 if settings.model.dtype == "float32" or not machine.packed else 2
    return 2 * shape.layers * shape.keys * act


def rows_together(sampling: config.SamplingConfig, one: Workload, keys: int, tile: int = 1) -> int:
    """Rows that the sampler decodes together: it admits what `max_rows` and `kv_gb` allow, and at least one.

    tile: while others wait it fills whole tiles of so many rows only, which takes less memory.
    """
    rows = min(sampling.max_rows, one.rows)
    if sampling.kv_gb:
        # The sampler leaves a step of room, for rows that join others of another age.
        rows = min(rows, int(sampling.kv_gb * GB) // ((one.prompt + one.tokens + CACHE_STEP) * keys))
    if tile < rows < one.rows:
        rows -= rows % tile
    return max(1, rows)


def _columns(tokens: int) -> int:
    return -(-tokens // CACHE_STEP) * CACHE_STEP
