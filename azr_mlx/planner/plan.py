"""Will a configuration fit, and how long will a step take? Answered from shapes alone, before anything is downloaded.

`shapes` knows the model, `machine` what it runs on, `workload` what a step writes; `memory` and `roofline` count bytes
and seconds; this module prints them and looks for a configuration that fits. Plain Python: MLX is imported only to
measure this machine. Sizes are bytes (1 GB = 10^9), times seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from azr_mlx import config
from azr_mlx.errors import AzrError, UsageError
from azr_mlx.model.held import Keep
from azr_mlx.planner import several
from azr_mlx.planner.lengths import Row, Table, measured
from azr_mlx.planner.machine import Machine, calibrated, here, mac, size
from azr_mlx.planner.memory import kept, plan_memory
from azr_mlx.planner.roofline import step_costs
from azr_mlx.planner.shapes import Shape, adapter_parameters, shape_of
from azr_mlx.planner.workload import step_workloads, typical_workloads
from azr_mlx.types import GB


def fitting_changes(settings: config.Config, shape: Shape, machine: Machine) -> dict[str, Any] | None:
    """Values of config fields that make the configuration fit, the least harmful first; None when nothing does."""
    turned: dict[str, Any] = {}

    def turn(key: str, value: Any) -> None:
        nonlocal settings
        settings = config.with_values(settings, {key: value})
        turned[key] = value

    for _ in range(100):
        now = plan_memory(settings, shape, machine)
        if now.total <= machine.room:
            return turned
        fixed = now.total - max(now.while_sampling, now.while_learning)
        room = machine.room - fixed
        longest = max(one.prompt + one.tokens for one in step_workloads(settings))
        moved = False
        if now.while_learning > room:
            tokens = settings.optim.micro_batch_tokens
            if settings.optim.checkpoint_layers in ("false", "projections"):
                turn("optim.checkpoint_layers", "auto")
                moved = True
            elif tokens > longest and now.pass_tokens > longest:
                turn("optim.micro_batch_tokens", max(longest, min(tokens, now.pass_tokens) // 2 // 256 * 256))
                moved = True
        if not moved and now.while_sampling > room and now.width > 1:
            # Rows queue for room: fewer at a time cost time, and nothing else.
            one_row = now.columns * now.token_bytes
            cache = math.floor(min(room - now.sampling, now.caches - one_row) / GB * 100) / 100
            if cache * GB >= 4 * one_row:
                turn("sampling.kv_gb", cache)
                moved = True
        if not moved:
            s = settings.sampling
            cut = {
                key: max(256, 3 * value // 4 // 64 * 64)
                for key, value in (
                    ("sampling.prompt_tokens", s.prompt_tokens),
                    ("sampling.propose_tokens", s.propose_tokens),
                    ("sampling.solve_tokens", s.solve_tokens),
                )
                if value > 256
            }
            if cut:
                for key, value in cut.items():
                    turn(key, value)
            elif now.width > 1:
                turn("sampling.max_rows", now.width // 2)
            elif settings.lora.rank > 8:
                turn("lora.rank", 8)
            elif settings.executor.workers != 1:
                turn("executor.workers", 1)
            else:
                return None
    return None


def plan_lines(
    settings: config.Config, shape: Shape, machine: Machine, table: Table | None = None
) -> tuple[list[str], bool]:
    """The lines of `azr plan`, and whether the configuration fits. table: measured lengths."""
    m = plan_memory(settings, shape, machine)
    keep = {
        Keep.ALL: "blocks kept",
        Keep.PROJECTIONS: "projections kept",
        Keep.INPUTS: "blocks computed again",
    }[kept(settings, shape, machine)]
    adapters = adapter_parameters(settings.lora, shape)
    bits = shape.quantized.get("bits", settings.model.bits)
    form = f"{bits} bits and scales" if machine.packed else "float32, as on every CPU"
    rows = [
        ("weights", m.weights, f"{shape.parameters / 1e9:.3g} G parameters, {form}"),
        (
            "adapters, two moments",
            m.adapters,
            f"{adapters / 1e6:.3g} M parameters of rank {settings.lora.rank}, float32",
        ),
    ]
    if m.merged:
        rows.append(("merged projections", m.merged, "adapters added for sampling, CPU only"))
    rows += [
        ("sampling: keys, values", m.caches, f"{m.width} rows of {m.columns:,} tokens, {_kilo(m.token_bytes)} a token"),
        ("sampling: beside them", m.sampling, "prefill, growth of the cache, logits"),
        ("learning: gradients", m.gradients, "float32"),
        ("learning: activations", m.activations, f"{m.pass_tokens:,} tokens a pass, {keep}"),
        ("kept for reuse", m.buffers, "MLX's cache of freed memory, shared prefixes"),
        (
            "executor and Python",
            m.children,
            f"{settings.executor.workers or machine.cores} workers, one program at its limit",
        ),
    ]
    fits = m.total <= machine.room
    lines = [
        f"plan      {settings.name}: {settings.model.id} ({shape.source})",
        f"machine   {machine.name}, {machine.memory / GB:.0f} GB, of which {machine.room / GB:.1f} GB may be used"
        + (" (Metal's recommended working set)" if machine.kind == "metal" else ""),
        "",
        f"{'memory, every row at its longest':<33}{'GB':>7}",
        *(f"  {name:<31}{value / GB:7.2f}  {what}" for name, value, what in rows),
        f"  {'at most, sampling or learning':<31}{m.total / GB:7.2f}  of {machine.room / GB:.2f}: "
        + ("fits" if fits else "DOES NOT FIT"),
        "",
    ]
    if not fits:
        words = fitting_changes(settings, shape, machine)
        if words is None:
            lines += ["no setting makes this model fit: take a smaller one (azr config lists the presets)"]
        else:
            after = plan_memory(config.with_values(settings, words), shape, machine).total
            sets = " ".join(f"--set {key}={config.written(value)}" for key, value in words.items())
            lines += [f"it fits, with {after / GB:.2f} GB, with", f"  {sets}"]
        lines.append("")
    return lines + _time_lines(settings, shape, machine, table), fits


def _time_lines(settings: config.Config, shape: Shape, machine: Machine, table: Table | None) -> list[str]:
    mean = step_costs(settings, shape, machine, typical_workloads(settings, table))
    whole = step_costs(settings, shape, machine, step_workloads(settings))
    share_bandwidth, share_flops = machine.reached
    reached = "" if share_flops == 1 else f", of which {share_bandwidth:.0%} and {share_flops:.0%} are taken as reached"
    lines = [
        f"roofline  {machine.bandwidth / GB:.4g} GB/s, {machine.flops / 1e12:.3g} TFLOP/s ({machine.basis}){reached}",
        f"          at mean lengths, {'measured in a run' if table else 'simulated'}; the last column at the longest",
        "",
        f"{'time of a step':<20}{'seconds':>9}  {'bound by':<17}{'GB moved':>9}{'TFLOP':>9}{'longest':>10}",
    ]
    for one, most in zip(mean, whole, strict=True):
        lines.append(
            f"  {one.name:<18}{one.seconds:9.3g}  {one.bound:<17}{one.bytes / GB:9.3g}{one.flops / 1e12:9.3g}"
            f"{most.seconds:10.3g}  {one.what}"
        )
    total, longest = sum(one.seconds for one in mean), sum(one.seconds for one in whole)
    lines += [
        f"  {'a step':<18}{total:9.3g}  {'':<35}{longest:10.3g}",
        f"  {settings.steps:,} steps: {_hours(total * settings.steps)}"
        + (f", stopped by minutes={settings.minutes:g}" if settings.minutes else "")
        + "; seeding and evaluation come on top, programs run beside the decoding",
    ]
    return lines


def _kilo(number: float) -> str:
    return f"{number / 1000:.0f} KB"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{seconds / 60:.1f} minutes"


def plan_command(
    settings: config.Config,
    size_: str = "",
    chip: str = "",
    bandwidth: float = 0,
    flops: float = 0,
    calibrate: Path | None = None,
    workers: str = "",
    rows: Sequence[Row] | None = None,
) -> tuple[list[str], bool]:
    """`azr plan`: the lines and whether it fits. bandwidth in GB/s, flops in TFLOP/s; `calibrate` is a file of
    `azr bench`; `workers` names other machines that share the work; `rows` are the steps of a run whose lengths are
    taken. Raises AzrError."""
    shape = shape_of(settings.model)
    table = None if rows is None else measured(settings, rows)
    if rows is not None and table is None:
        raise UsageError("plan: the run of --lengths has no step yet whose lengths could be taken")
    if calibrate is not None:
        if chip:
            raise UsageError("plan: --calibrate names the machine that was measured, so that --chip says too much")
        machine = calibrated(calibrate)
        if size_:  # the same chip with other memory
            memory = size(size_)
            machine = replace(machine, memory=memory, room=machine.room / machine.memory * memory)
    elif size_ or chip:
        given = size(size_) if size_ else 0.0
        if not given:
            raise UsageError("plan: --chip describes another machine: say how much memory it has with --memory 48GB")
        try:
            machine = mac(given, chip)
        except UsageError:
            if not (bandwidth and flops):
                raise
            machine = replace(mac(given), name=chip)  # its rates are given
    else:
        machine = here()
    if machine.memory <= 0:
        raise AzrError("this machine does not say how much memory it has: give --memory 48GB")
    if bandwidth or flops:
        machine = replace(
            machine,
            bandwidth=bandwidth * GB or machine.bandwidth,
            flops=flops * 1e12 or machine.flops,
            basis="given" if bandwidth and flops else f"{'bandwidth' if bandwidth else 'flops'} given",
        )
    said, fits = plan_lines(settings, shape, machine, table)
    if workers:
        more, all_fit = several.lines(settings, shape, machine, several.workers_of(workers))
        said, fits = said + more, fits and all_fit
    return said, fits
