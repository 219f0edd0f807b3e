"""Is this machine fit for a run? Every check says what it found and, when that is not well, what to do.

The executor is looked at before MLX is imported, as in a run. The self-test lets the embedded model write for about
two seconds.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azr_mlx import __version__, paths
from azr_mlx.errors import AzrError
from azr_mlx.executor import LayerReport, find_layers
from azr_mlx.types import GB
from azr_mlx.versions import package_versions

FINE, NOTE, WRONG = "ok", "note", "wrong"
EMBEDDED = "checkpoints/qwen3-nano"
# How packages come into the environment that this runs in: of a clone, or of uv, pipx or pip.
CLONED = (Path(__file__).resolve().parents[1] / "Makefile").is_file()
SET_UP = "make setup" if CLONED else "install azr-mlx again, as in uv tool install --force azr-mlx"
# What rounding may do: float32 sums in another order; 4-bit or 16-bit kernels on a GPU differ far more.
CLOSE_F32, CLOSE_HALF = 1e-3, 0.3
# Rows of a product: GPU kernels change at 8 or 9 rows and at every 32, so that one may be right and the next wrong.
ROWS = (1, 3, 9, 33, 65)
# Share of the largest number that a product may be off by: rounding of its result, and some room. MLX's packed kernel
# for CPUs, which a rehearsal runs, also sums in bfloat16: 6 % off at 256 terms (measured).
OFF_F32, OFF_HALF, OFF_REHEARSED = 1e-4, 0.02, 0.15


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and what would make it better. Wrong ones stop a run, notes do not."""

    name: str
    state: str
    found: str
    todo: str = ""


def examine(network: bool = True) -> Iterator[Finding]:
    """All checks, in the order in which a problem of one explains those of the next."""
    yield python()
    yield from packages()
    yield from sandbox()  # before MLX
    yield from disk()
    yield from mlx()
    yield from guarded("products", products)
    yield from guarded("gradient", gradient)
    yield from guarded("self-test", self_test)
    if network:
        yield from guarded("hub", hub)


def guarded(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check that may fail in ways nobody thought of: then that is what it found."""
    try:
        yield from check()
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        yield Finding(name, WRONG, what, "run it again with AZR_DEBUG=1, and tell us what it says")


def python() -> Finding:
    version, machine = platform.python_version(), platform.machine()
    found = f"{version} for {machine} on {platform.platform(terse=True)}, azr_mlx {__version__}"
    if sys.platform == "darwin" and machine != "arm64":
        return Finding(
            "python", WRONG, f"{found}: an Intel Python, which cannot see the GPU",
            f"install a native Python (brew or uv under /opt, not Rosetta), delete its environment, then {SET_UP}",
        )  # fmt: skip
    return Finding("python", FINE, found)


def packages() -> Iterator[Finding]:
    wanted = ("mlx", "mlx-lm", "numpy", "transformers", "huggingface-hub", "rich", "jinja2")
    found = package_versions(wanted)
    missing = [name for name in wanted if name not in found]
    if missing:
        yield Finding("packages", WRONG, f"missing: {', '.join(missing)}", SET_UP)
    else:
        yield Finding("packages", FINE, ", ".join(" ".join(one) for one in found.items()))


def sandbox() -> Iterator[Finding]:
    """The layers that confine what the model writes, by starting the executor."""
    try:
        layers: LayerReport = find_layers()
    except (AzrError, RuntimeError, OSError) as error:
        yield Finding(
            "sandbox", WRONG, f"does not start: {error}",
            "check the limits of processes and open files (ulimit -a) and that the temporary folder can be written to",
        )  # fmt: skip
        return
    active = ", ".join(layers.active) or "no layer"
    open_ = [word for word in ("files", "network", "processes") if not getattr(layers, word)]
    if not layers.memory:
        yield Finding(
            "memory limit", NOTE, f"nothing holds programs to their memory: {layers.missing['footprint']}",
            "keep executor.workers low and watch the first steps: macOS itself ends what takes too much",
        )  # fmt: skip
    if not open_:
        yield Finding("sandbox", FINE, f"files, network and processes are confined ({active})")
        return
    why = layers.lacking()
    fix = "pip install pyseccomp" if "seccomp" in layers.missing and sys.platform == "linux" else "see docs/security.md"
    yield Finding(
        "sandbox", NOTE, f"programs reach {', '.join(open_)} (active: {active}; {why})",
        f"{fix}; or run in a virtual machine. executor.level=strict refuses to train like this",
    )  # fmt: skip


def disk() -> Iterator[Finding]:
    folder = paths.checkpoints()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{free / GB:.0f} GB free at {folder}"
    if not os.access(folder, os.W_OK):
        yield Finding(
            "disk", WRONG, f"{folder} cannot be written to", "work in a folder of your own, or set AZR_HOME to one"
        )
    elif free < 5 * GB:
        yield Finding("disk", NOTE, found, "a 3B model takes 2 GB and a run with its rollouts 1 to 5 GB: make room")
    else:
        yield Finding("disk", FINE, found)


def mlx() -> Iterator[Finding]:
    """Device, memory, BLAS. Imports MLX."""
    try:
        device: Any = importlib.import_module("azr_mlx.model.device")
        profile = device.prepare()
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        yield Finding("mlx", WRONG, f"cannot be imported: {what}", f"{SET_UP}; on macOS it needs version 14 or newer")
        return
    memory = f"{profile.device_name}, {profile.memory / GB:.0f} GB"
    if profile.name == "cpu" and sys.platform == "darwin":
        yield Finding(
            "device", WRONG, f"cpu: {memory}", "MLX sees no GPU: not inside a VM or over Rosetta; update macOS"
        )
    elif profile.name == "cpu":
        yield Finding("device", FINE, f"cpu: {memory}: for nano and development; larger models want a GPU")
    elif profile.memory < 12 * GB:
        yield Finding("device", NOTE, f"{profile.name}: {memory}", "take qwen1.5-4b or a smaller model")
    else:
        yield Finding("device", FINE, f"{profile.name}: {memory}")
    if sys.platform.startswith("linux") and profile.name == "cpu":
        if profile.blas:
            yield Finding("blas", FINE, f"OpenBLAS ({Path(profile.blas).name})")
        else:
            yield Finding("blas", NOTE, "reference BLAS", "pip install scipy-openblas32: matmuls 20 times faster")
    yield from free_memory(profile)
    if sys.platform == "darwin":
        yield from guarded("mac", mac)


def mac() -> Iterator[Finding]:
    """What only a Mac has: the system's version, the GPU's watchdog, memory pressure, sleep."""
    from azr_mlx.model import metal
    from azr_mlx.run.wakefulness import CAFFEINATE

    system = platform.mac_ver()[0]
    old = tuple(int(part) for part in system.split(".")[:1] if part.isdigit()) < (14,)
    yield Finding("macos", WRONG if old else FINE, system, "update macOS: MLX needs version 14" * old)
    relaxed = os.environ.get(metal.RELAX) == "1"
    yield Finding(
        "watchdog", FINE if relaxed else NOTE, f"{metal.RELAX}={os.environ.get(metal.RELAX, '')}",
        "" if relaxed else f"unset {metal.RELAX}: macOS may end the run for long kernels while the display is on",
    )  # fmt: skip
    level = metal.memory_pressure()
    words = {metal.NORMAL: "normal", metal.WARNING: "high", metal.CRITICAL: "critical"}
    calm = level in (None, metal.NORMAL)
    yield Finding(
        "pressure", FINE if calm else NOTE, f"memory pressure is {words.get(level or 0, 'unknown')}",
        "close other programs before a run" * (not calm),
    )  # fmt: skip
    if os.access(CAFFEINATE, os.X_OK):
        yield Finding("sleep", FINE, "runs hold this Mac awake (caffeinate)")
    else:
        yield Finding("sleep", NOTE, f"{CAFFEINATE} is not there", "keep the Mac awake by its settings while it trains")
    import resource

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    few = files != resource.RLIM_INFINITY and files < 1024
    yield Finding("files", NOTE if few else FINE, f"{files} open files a process", "ulimit -n 4096" * few)


def products() -> Iterator[Finding]:
    """Products of few rows beside float64: some builds of MLX have been wrong there."""
    from azr_mlx.model import device, numerics

    profile = device.prepare()
    found = numerics.check_products(profile.packed)
    # A CPU adds packed bfloat16 products up in bfloat16; the rehearsal of a GPU's path lives with that.
    fine = [one.right or (profile.name == "rehearsal" and one.error < OFF_REHEARSED) for one in found]
    wrong = [
        f"{one.operation} {one.dtype} at {one.rows} rows ({one.error:.1e})"
        for one, right in zip(found, fine, strict=True)
        if not right
    ]
    if wrong:
        yield Finding(
            "products", WRONG, f"this build of MLX multiplies wrongly: {', '.join(wrong)}",
            "install the wheel from PyPI (not Homebrew's or an own build), and tell us the chip and the versions",
        )  # fmt: skip
    else:
        largest = max(one.error for one in found)
        rows = ", ".join(map(str, numerics.ROWS))
        yield Finding("products", FINE, f"{rows} rows beside float64: largest error {largest:.0e}")


def free_memory(profile: Any) -> Iterator[Finding]:
    """Memory that other programs leave; Linux only says so without a package."""
    try:
        facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return
    state = NOTE if free < 2 * GB else FINE
    yield Finding(
        "memory", state, f"{free / GB:.1f} GB free", "close other programs: nano needs about 2 GB" * (free < 2 * GB)
    )


def gradient() -> Iterator[Finding]:
    """The gradient through packed weights against float64: what a GPU trains with, and what no product shows."""
    import mlx.core as mx
    import numpy as np

    device: Any = importlib.import_module("azr_mlx.model.device")
    profile = device.prepare()
    dtype = device.activation_dtype("auto", profile)
    limit = {"cpu": OFF_F32, "rehearsal": OFF_REHEARSED}.get(profile.name, OFF_HALF)
    draw = np.random.default_rng(0).standard_normal
    packed = mx.quantize(mx.array(draw((384, 256)), dtype), 64, 4)
    exact_weight = np.array(mx.dequantize(*packed, 64, 4).astype(mx.float32), np.float64)

    def through_packed(x: Any) -> Any:
        return mx.quantized_matmul(x, *packed, transpose=True, group_size=64, bits=4)

    worst, wrong = 0.0, []
    for rows in ROWS:
        x, slope = (mx.array(draw((rows, width)), dtype) for width in (256, 384))
        found = np.array(mx.vjp(through_packed, [x], [slope])[1][0].astype(mx.float32), np.float64)
        exact = np.array(slope.astype(mx.float32), np.float64) @ exact_weight
        off = float(np.abs(found - exact).max() / np.abs(exact).max())
        worst = max(worst, off if off == off else float("inf"))
        if not off < limit:  # also when it is not a number
            wrong.append(f"{rows} rows ({off:.0%})")
    if wrong:
        yield Finding(
            "gradient", WRONG, f"the gradient through packed weights is off at {', '.join(wrong)}",
            "install MLX's wheel from PyPI (not Homebrew's or an own build), and tell us the chip and the versions",
        )  # fmt: skip
    else:
        yield Finding("gradient", FINE, f"through packed weights within {worst:.1e} of float64, 1 to 65 rows")


def self_test() -> Iterator[Finding]:
    """Sampler against trainer, and batches against single rows, on real weights."""
    began = time.monotonic()
    policy, name = _policy()
    import numpy as np

    from azr_mlx.types import Kind, Prompt, Role

    texts = (
        "deduction\n```python\ndef f(a):\n    return a * 2\n```\n```input\n3\n```\n",
        "propose abduction\n",
        "x = 1",
    )
    prompts = [Prompt(Role.SOLVE, Kind.DEDUCTION, text) for text in texts]
    together = policy.sample_all(prompts, 2, seed=(1, 2, 3), max_tokens=24)
    rollouts = [one for group in together for one in group]
    sampled = np.concatenate([np.array(one.completion.logprobs) for one in rollouts])
    trained = np.concatenate(policy.logprobs(rollouts))
    gap = float(np.abs(sampled - trained).max())
    limit = CLOSE_F32 if policy.profile.name == "cpu" else CLOSE_HALF
    found = f"largest |Δ logp| {gap:.0e} over {len(sampled)} tokens of {name}"
    if not gap < limit:  # also when it is not a number
        yield Finding(
            "sampler", WRONG, found,
            "what is sampled is not what is trained: update mlx and mlx-lm, or set loss.recompute_old_logprobs=true",
        )  # fmt: skip
    else:
        yield Finding("sampler", FINE, found)
    greedy = policy.sample_all(prompts, 1, seed=(1,), max_tokens=24, temperature=0.0)
    alone = [policy.sample_all([prompt], 1, seed=(1,), max_tokens=24, temperature=0.0)[0] for prompt in prompts]
    same = sum(a[0].completion.tokens == b[0].completion.tokens for a, b in zip(greedy, alone, strict=True))
    took = f"{same} of {len(prompts)} completions equal, alone and in a batch ({time.monotonic() - began:.1f} s in all)"
    if same == len(prompts):
        yield Finding("batches", FINE, took)
    elif policy.profile.name == "cpu":
        yield Finding("batches", WRONG, took, "a row's text depends on its neighbours: update mlx and mlx-lm")
    else:
        yield Finding(
            "batches", NOTE, took, "16-bit arithmetic may break ties differently; all of them would be a fault"
        )


def _policy() -> tuple[Any, str]:
    from azr_mlx import config
    from azr_mlx.model.policy import Policy

    folder = paths.resolve_existing(EMBEDDED)
    if folder is None or not (folder / "model.safetensors").is_file():
        raise AzrError(f"there is no {EMBEDDED}: the self-test needs the embedded model")
    settings = config.load("nano", [f"model.id={folder}"])
    policy = Policy.load(settings.model, settings.lora, settings.optim, settings.sampling, settings.loss, seed=0)
    return policy, folder.name


def hub() -> Iterator[Finding]:
    """Whether models can be downloaded: one small request."""
    import urllib.error
    import urllib.request

    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        yield Finding("hub", NOTE, "HF_HUB_OFFLINE is set", "unset it to download models; cached ones work")
        return
    if not address.startswith(("https://", "http://")):
        yield Finding("hub", WRONG, f"HF_ENDPOINT={address} is no web address", "unset HF_ENDPOINT")
        return
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=5).close()
    except urllib.error.HTTPError:
        pass  # an answer is an answer
    except OSError as error:
        reason = getattr(error, "reason", error)
        yield Finding(
            "hub", NOTE, f"{address} is out of reach ({reason})",
            "nano needs no download; for others check the network, or set HTTPS_PROXY or HF_ENDPOINT",
        )  # fmt: skip
        return
    yield Finding("hub", FINE, address)


def record(findings: list[Finding]) -> dict[str, Any]:
    """The findings as plain data for a report: without the user's name, folders and addresses."""
    rows = [
        {"name": one.name, "state": one.state, "found": _impersonal(one.found), "todo": _impersonal(one.todo)}
        for one in findings
    ]
    return {
        "azr_mlx": __version__,
        "system": sys.platform,
        "fit": not any(one.state == WRONG for one in findings),
        "findings": rows,
        "advice": [_impersonal(line) for line in advice(findings)],
    }


def as_text(record: dict[str, Any]) -> str:
    return json.dumps(record, indent=1, ensure_ascii=False)


def _impersonal(text: str) -> str:
    """A line with the home folder, other folders' names and the host's name left out."""
    text = re.sub(r"(?<![\w.:/])(/[^\s,;:()]+)+", lambda found: _place(found.group()), text)
    for personal in {platform.node(), platform.node().split(".")[0], Path.home().name}:
        if len(personal) > 2 and personal not in ("root", "localhost"):
            text = re.sub(rf"(?<!\w){re.escape(personal)}(?!\w)", "...", text)
    return text


def _place(path: str) -> str:
    """A path by its last part, unless it belongs to the system."""
    return path if path.startswith(("/usr/", "/System/", "/dev/", "/proc/")) else f".../{path.rsplit('/', 1)[-1]}"


def advice(findings: list[Finding]) -> list[str]:
    """What to fix, in order: what stops a run first, then what would make it better."""
    return [f"{one.name}: {one.todo}" for state in (WRONG, NOTE) for one in findings if one.state == state and one.todo]
