"""`azr bench`: the order of the measurements, the file, and the lines for the reader."""

from __future__ import annotations

import contextlib
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from azr_mlx import __version__, config, paths
from azr_mlx.bench import measure
from azr_mlx.errors import AzrError, UsageError
from azr_mlx.planner import chips
from azr_mlx.types import GB

FORMAT = 1
# Shares of the time: executor, products, decode, prefill, update.
_SHARES = {"executor": 0.08, "products": 0.15, "decode": 0.45, "prefill": 0.1, "update": 0.15}
EMBEDDED = "checkpoints/qwen3-nano"


def bench_command(
    out: Path, *, seconds: float = 150.0, model: str = "", say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Measure, write `out`, and return what is in it. Raises AzrError.

    model: a folder or repository; empty is a random 4-bit model of real size on a GPU, the embedded one on a CPU.
    """
    began = time.monotonic()
    say("executor")
    found: dict[str, Any] = {"format": FORMAT, "azr_mlx": __version__, "date": time.strftime("%Y-%m-%d")}
    programs = measure.executor_rates(seconds * _SHARES["executor"])  # before MLX is imported
    from azr_mlx.model import device, numerics

    profile = device.prepare()
    found["machine"] = _machine(profile)
    found["executor"] = programs
    say("numerics")
    products = numerics.check_products(profile.packed)
    found["numerics"] = {
        "right": all(one.right for one in products),
        "errors": [
            {"operation": one.operation, "dtype": one.dtype, "rows": one.rows, "error": one.error, "right": one.right}
            for one in products
        ],
    }
    say("matrix products")
    found["products"] = measure.product_rates(profile.packed, seconds * _SHARES["products"])
    with tempfile.TemporaryDirectory(prefix="azr-bench-") as scratch:
        policy, name = _policy(model, profile, Path(scratch))
        found["model"] = name
        say(f"sampler against trainer, on {name}")
        found["gap"] = measure.sampler_gap(policy)
        say("decoding")
        found["decode"] = measure.decode_rates(policy, measure.WIDTHS, seconds * _SHARES["decode"])
        say("prefill and update")
        found["prefill"] = measure.prefill_rate(policy, seconds * _SHARES["prefill"])
        found["update"] = measure.update_rate(policy, seconds * _SHARES["update"])
    memory = device.memory()
    found["memory"] = {"active": memory.active, "peak": memory.peak, "cache": memory.cache}
    found["seconds"] = round(time.monotonic() - began, 1)
    try:
        fresh = out.with_name(f".{out.name}.new")
        fresh.write_text(json.dumps(_rounded(found), indent=1) + "\n", encoding="utf-8")
        fresh.replace(out)
    except OSError as error:
        raise AzrError(f"bench: {out} cannot be written: {error.strerror}: name another file with --out") from None
    return found


def _machine(profile: Any) -> dict[str, Any]:
    """The hardware and the versions, nothing of whose they are."""
    versions = {}
    for package in ("mlx", "mlx-lm", "numpy"):
        versions[package] = metadata.version(package)
    return {
        "device": profile.name,
        "name": profile.device_name.removeprefix("Apple "),
        "memory": profile.memory,
        "system": f"macOS {platform.mac_ver()[0]}" if sys.platform == "darwin" else platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _policy(model: str, profile: Any, scratch: Path) -> tuple[Any, str]:
    from azr_mlx.bench.random_model import BLOCKS_OF_3B, write_random_model
    from azr_mlx.model.policy import Policy

    if model:
        where, name = model, Path(model).name
    elif profile.packed:
        where, name = str(write_random_model(BLOCKS_OF_3B, scratch / "model")), "8 blocks of Qwen2.5-3B, 4 bits"
    else:
        folder = paths.resolve_existing(EMBEDDED)
        if folder is None or not (folder / "model.safetensors").is_file():
            raise AzrError(f"there is no {EMBEDDED}: run azr bench in a copy of the repository, or name a --model")
        where, name = str(folder), folder.name
    settings = config.load("nano", [f"model.id={where}"])
    parts = settings.lora, settings.optim, settings.sampling, settings.loss
    return Policy.load(settings.model, *parts, seed=0), name


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def lines(found: dict[str, Any]) -> list[str]:
    """The measurement for a reader."""
    machine, products = found["machine"], found["products"]
    said = [f"machine   {machine['name']}, {machine['memory'] / GB:.0f} GB, {machine['device']}, {machine['system']}"]
    numerics = found["numerics"]
    if numerics["right"]:
        said.append("products  right at 3, 9, 33 and 65 rows, dense and 4-bit, against float64")
    else:
        wrong = [
            f"{one['operation']} {one['dtype']} {one['rows']} rows" for one in numerics["errors"] if not one["right"]
        ]
        said.append(f"products  WRONG: {', '.join(wrong)}: this build of MLX must not train")
    beside = ""
    if machine["device"] == "metal":
        with contextlib.suppress(UsageError):  # newer than the table
            chip = chips.find(machine["name"], machine["memory"])
            beside = f" (the chip's table: {chip.bandwidth:g} GB/s, {chip.tflops:.3g} TFLOP/s)"
    said += [
        f"reached   {products['gb_per_second']:.4g} GB/s by one row, {products['tflops']:.3g} TFLOP/s dense, "
        f"{products['quantized_tflops']:.3g} in 4 bits, {products['launch_microseconds']:.3g} µs an operation{beside}",
        f"model     {found['model']}",
        "decode    " + "  ".join(f"{width}: {rate:,.0f}" for width, rate in found["decode"].items()) + "  tokens/s",
        f"prefill   {found['prefill']:,.0f} tokens/s",
        f"update    {found['update']['tokens_per_second']:,.0f} tokens/s, "
        f"peak {found['update']['peak_memory_bytes'] / GB:.2f} GB",
        f"gap       |Δ logp| sampler to trainer: mean {found['gap']['mean']:.1e}, largest {found['gap']['max']:.1e}",
        f"executor  {found['executor']['one_worker']:,.0f} programs/s by one worker, "
        f"{found['executor']['all_workers']:,.0f} by {found['executor']['workers']} "
        f"({', '.join(found['executor']['layers']) or 'no layer'})",
        f"took      {found['seconds']:.0f} s",
    ]
    return said
