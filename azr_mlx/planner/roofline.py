"""Time of a step by a roofline (Williams, Waterman and Patterson 2009).

A step of decoding reads all weights and all keys and values once; prefill and update are products of matrices. Each
takes at least bytes / bandwidth or operations / rate, whichever is longer. A product of a few rows with the weights
costs whole tiles of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from azr_mlx import config
from azr_mlx.model.flops import Dimensions
from azr_mlx.model.limits import PREFILL_TOKENS
from azr_mlx.planner.machine import Machine
from azr_mlx.planner.memory import kept, rows_together, token_bytes, weight_bytes
from azr_mlx.planner.shapes import Shape, adapter_parameters
from azr_mlx.planner.workload import Workload, step_workloads, typical_workloads

# Kernels of a block in a forward pass, its adapters included: counted in the graph of a Qwen 2.5 block with LoRA.
LAUNCHES = 42


@dataclass(frozen=True, slots=True)
class Cost:
    """One part of a step: what it moves and computes, and its time by the roofline."""

    name: str
    bytes: float
    flops: float
    seconds: float
    bound: str  # "bandwidth", "flops" or "small operations"
    what: str


def step_costs(
    settings: config.Config, shape: Shape, machine: Machine, work: Sequence[Workload] | None = None
) -> list[Cost]:
    """The parts of a step that writes `work` (none given: at mean lengths)."""
    work = typical_workloads(settings) if work is None else work
    size = dimensions(settings, shape)
    weights = weight_bytes(settings.model, shape, machine)
    keys = token_bytes(settings, shape, machine)
    adapters = 4 * adapter_parameters(settings.lora, shape)
    costs = []
    limits = {one.name: one for one in step_workloads(settings)}
    for one in work:
        longest = limits.get(one.name, one)
        # The sampler plans for the longest.
        rows = rows_together(settings.sampling, longest, keys, settings.sampling.tile_rows or machine.batch_tile)
        pairs, prompt_tokens = one.prompt_pairs, one.prompt_tokens
        flops = size.forward(prompt_tokens, pairs) + size.head(one.prompts)
        passes = max(1, prompt_tokens / PREFILL_TOKENS)
        exps = prompt_tokens * shape.gate * shape.layers + 2 * pairs * shape.heads * shape.layers
        said = f"{one.prompts:,} prompts of {one.prompt:,} tokens, {prompt_tokens:,} computed"
        launches = passes * LAUNCHES * shape.layers
        costs.append(_cost(f"{one.name}: prefill", passes * weights, flops, exps, launches, machine, said))
        # As many full batches as there are, and what is left as a last one.
        batches = [(rows, one.rows // rows), (one.rows % rows, 1)]
        context = one.prompt + one.tokens / 2
        products = 2 * (size.matrices + size.adapters + size.table)  # operations of a row in products with the weights
        moved = flops = exps = steps = 0.0
        for width, times in batches if one.rows % rows else batches[:1]:
            computed, read = machine.padded(width), 1
            by_tile = computed * products / (machine.flops * machine.tile_flops)
            if machine.tile > 1 and width * weights / (machine.bandwidth * machine.reached[0]) < by_tile:
                computed, read = (
                    width,
                    width,
                )  # a matrix-vector kernel, which reads the weights for each of the few rows
            steps += times * one.tokens
            moved += (
                times * one.tokens * (read * weights + adapters + width * (context * keys + 8 * 4 * shape.vocabulary))
            )
            flops += times * one.tokens * (computed * products + width * 4 * context * shape.queries * shape.layers)
            exps += (
                times
                * one.tokens
                * width
                * (shape.layers * (shape.gate + context * shape.heads) + 2 * shape.vocabulary)
            )
        padded = f" (computed as {machine.padded(rows)})" if machine.padded(rows) > rows else ""
        costs.append(_cost(f"{one.name}: decode", moved, flops, exps, steps * LAUNCHES * shape.layers, machine,
                           f"{one.rows:,} rows of {one.tokens:,} tokens, {rows} at a time{padded}",
                           machine.tile_flops))  # fmt: skip
    tokens = completions = pairs = 0.0
    for one in work:
        if one.trained:
            tokens += one.prompt_tokens + one.rows * one.tokens
            completions += one.rows * one.tokens
            pairs += one.prompt_pairs + one.reply_pairs
    updates = settings.loss.updates_per_batch
    # Rows beyond their own triangle are computed masked or not at all: the real pairs are counted.
    flops = size.gradient(tokens, pairs, completions) + size.again(tokens, pairs, kept(settings, shape, machine))
    passes = max(1.0, tokens / settings.optim.micro_batch_tokens)
    exps = tokens * 3 * shape.gate * shape.layers + 3 * pairs * shape.heads * shape.layers
    exps += 4 * completions * shape.vocabulary
    moved = 3 * passes * weights + 8 * adapters
    costs.append(_cost("update", updates * moved, updates * flops, updates * exps,
                       updates * passes * 150 * shape.layers, machine,
                       f"{tokens:,.0f} tokens, {completions:,.0f} of them completions"))  # fmt: skip
    return costs


def dimensions(settings: config.Config, shape: Shape) -> Dimensions:
    """Sizes of the model's products."""
    table = shape.vocabulary * shape.width
    return Dimensions(shape.matrices, adapter_parameters(settings.lora, shape), table, shape.queries, shape.layers)


def _cost(
    name: str,
    moved: float,
    flops: float,
    exps: float,
    launches: float,
    machine: Machine,
    what: str,
    reached: float = 0.0,
) -> Cost:
    """reached: the share of the machine's flops, where it is not the usual one."""
    share_bandwidth, share_flops = machine.reached
    share_flops = reached or share_flops
    memory_time = moved / (machine.bandwidth * share_bandwidth)
    flop_time = flops / (machine.flops * share_flops)
    small = exps * machine.elementwise + launches * machine.launch
    seconds = max(memory_time, flop_time) + small
    bound = "bandwidth" if memory_time > flop_time else "flops"
    if small > max(memory_time, flop_time):
        bound = "small operations"
    return Cost(name, moved, flops, seconds, bound, what)
