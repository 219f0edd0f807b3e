"""Several machines on one run: what a step takes with 0, 1, 2 and 4 workers here, and with 2 to 64 in a simulation.

    python -m benchmarks.speed.cluster               both tables (some minutes)
    python -m benchmarks.speed.cluster --simulate --costs FILE    the second one, with item costs measured before

Measured: nano, the coordinator pinned to the first core, workers to the others in turn, one step of fixed prompts again
and again. On a machine of two cores that shows what sharing costs and that one more core is used; more workers than
cores show how the list shares out a core, and no speed. The adapters of every row must be equal to the byte.

Simulated: the real list of items on a clock that jumps (azr_mlx/cluster/simulation.py). Machines are of unequal speed:
1, 1/2 and 1/4 of the coordinator's, in turn. Costs of nano's items are those measured here; those of a 3B model are the
roofline of azr plan for an M3 Max, with the time that packing and checking 120 MB takes here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from azr_mlx import config, planner
from azr_mlx.cluster.simulation import SimulatedMachine, simulate
from azr_mlx.planner import several

WORKERS = (0, 1, 2, 4)
MACHINES = (1, 2, 4, 8, 16, 32, 64)
SPEEDS = (1.0, 0.5, 0.25)
SETS = ("sampling.item_rows=8", "optim.gradient_items=8", "model.style=compact", "lora.rank=16", "optim.lr=1e-3",
        "optim.micro_batch_tokens=1024")  # fmt: skip
PROMPTS, GROUP, TOKENS = 32, 8, 64


def pinned(core: int) -> Any:
    """What puts a new process on one core; nothing where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    return lambda: os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})


def one(workers: int, steps: int) -> dict[str, Any]:
    """Steps of this process as the coordinator of so many workers."""
    from azr_mlx.cluster import certificates
    from azr_mlx.cluster.coordinator import HERE, Coordinator
    from azr_mlx.cluster.transport import Server
    from azr_mlx.model.policy import Policy
    from azr_mlx.types import Kind, Prompt, Role

    settings = config.load(None, SETS)
    policy = Policy.load(settings.model, settings.lora, settings.optim, settings.sampling, settings.loss, total_steps=9)
    prompts = [
        Prompt(Role.SOLVE, Kind.DEDUCTION, f"def f(a):\n    return a[{i}:] + a[:{i}]\nf('abcde{i}')\n")
        for i in range(PROMPTS)
    ]
    mine, theirs = certificates.create()
    coordinator = Coordinator(policy, settings, lambda line: None)
    policy.computer = coordinator
    rows = []
    with tempfile.TemporaryDirectory() as folder, Server("127.0.0.1", 0, mine, coordinator.handlers) as server:
        file = Path(folder) / "worker.pem"
        file.write_bytes(theirs.key + theirs.certificate + theirs.authority)
        command = [
            sys.executable,
            "-m",
            "azr_mlx",
            "worker",
            f"tls://127.0.0.1:{server.port}",
            "--certificate",
            str(file),
        ]
        processes = [
            subprocess.Popen([*command, "--name", f"w{i}"], preexec_fn=pinned(1 + i), stderr=subprocess.DEVNULL)
            for i in range(workers)
        ]
        try:
            while len(coordinator.machines) < workers:
                time.sleep(0.05)
            for step in range(steps):
                coordinator.lines()
                started, processor = time.perf_counter(), time.process_time()
                session = policy.generate(seed=(step,))
                session.submit(prompts, GROUP, max_tokens=TOKENS)
                rollouts = [rollout for _, _, rollout in session]
                policy.update(rollouts, [(-1.0) ** i * (1 + i / 9) for i in range(len(rollouts))])
                seconds = time.perf_counter() - started
                own = coordinator.own.seconds
                rows.append({
                    "seconds": seconds, "computing": own, "processor": time.process_time() - processor,
                    "share": own / sum(m.seconds for m in (coordinator.own, *coordinator.machines.values())),
                    "tokens": sum(len(one.completion.tokens) for one in rollouts),
                    "received": coordinator.bytes_in, "sent": coordinator.bytes_out,
                })  # fmt: skip
            pace = {kind: value for (who, kind), value in coordinator.items._pace.items() if who == HERE}
        finally:
            coordinator.close()
            for process in processes:
                process.wait(30)
    digest = hashlib.sha256(b"".join(bytes(memoryview(v)) for _, v in sorted(policy.state().items()))).hexdigest()
    settled = rows[1:]
    mean = {key: sum(row[key] for row in settled) / len(settled) for key in settled[0]}
    mean["seconds"] = min(row["seconds"] for row in settled)  # other processes only ever add to it
    sizes = sum(value.size * 4 for value in policy.adapter().values())
    return mean | {"workers": workers, "digest": digest, "pace": pace, "adapter_bytes": sizes}


def measured(steps: int) -> list[dict[str, Any]]:
    found = []
    for workers in WORKERS:
        said = subprocess.run(
            [sys.executable, "-m", "benchmarks.speed.cluster", "--one", str(workers), "--steps", str(steps)],
            preexec_fn=pinned(0), capture_output=True, text=True, check=True,
        )  # fmt: skip
        found.append(json.loads(said.stdout.splitlines()[-1]))
    return found


def message_seconds(megabytes: float = 120.0, arrays: int = 504) -> float:
    """Seconds to pack, read and check a gradient of so many bytes here."""
    import numpy as np

    from azr_mlx.cluster import messages

    side = int(megabytes * 1e6 / 4 / arrays)
    values = {f"layer.{i}": np.ones(side, np.float32) for i in range(arrays)}
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        _, back = messages.unpack(messages.pack({}, values))
        messages.read_parameters(back, dict.fromkeys(values, (side,)))
        best = min(best, time.perf_counter() - started)
    return best


def table_measured(rows: list[dict[str, Any]]) -> list[str]:
    base = rows[0]
    lines = [
        "| workers | step, s | beside none | tokens/s | received MB | sent MB | coordinator's share | not computing "
        "| adapters |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        outside = max(0.0, 1 - row["computing"] / row["seconds"])
        same = "equal" if row["digest"] == base["digest"] else "DIFFERENT"
        lines.append(
            f"| {row['workers']} | {row['seconds']:.2f} | {base['seconds'] / row['seconds']:.2f}x "
            f"| {row['tokens'] / row['seconds']:.0f} | {row['received'] / 1e6:.2f} | {row['sent'] / 1e6:.2f} "
            f"| {row['share']:.0%} | {outside:.0%} | {same} |"
        )
    return lines


def table_simulated(base: dict[str, Any]) -> list[str]:
    """Steps of nano (items as measured) and of a 3B model (roofline), on machines that are not there."""
    rows = PROMPTS * GROUP
    writing = base["pace"]["WritingItem"] * rows * TOKENS
    learning = max(base["seconds"] - writing, 1e-3)
    settings = config.load("qwen2.5-coder-3b", ["sampling.item_rows=32", "sampling.max_rows=32"])
    shape, mac = planner.shape_of(settings.model), planner.mac(48e9, "M3 Max")
    large = several.alone(settings, shape, mac)
    adapter = 4.0 * planner.adapter_parameters(settings.lora, shape)
    writes = -(-sum(one.rows for one in planner.step_workloads(settings)) // 32)
    check = message_seconds()
    cases = [
        ("nano, measured items, 1 GbE", writing, learning, 16, 8, base["adapter_bytes"], 0.002),
        ("3B on M3 Max (roofline), 8 sums, 1 GbE", large.writing, large.learning, writes, 8, adapter, check),
        ("3B on M3 Max (roofline), 64 sums, 1 GbE", large.writing, large.learning, writes, 64, adapter, check),
    ]
    lines = []
    for name, w, g, items, sums, size, per_item in cases:
        lines += [
            "",
            f"Simulated: {name}; {items} items of completions, {sums} sums, {size / 1e6:.3g} MB of adapters. "
            f"Machines run at {', '.join(f'{s:g}' for s in SPEEDS)} of the coordinator's speed in turn.",
            "",
            "| machines | step, s | speed-up | of all speeds together | idle | received GB | items computed twice |",
            "|---|---|---|---|---|---|---|",
        ]
        alone = 0.0
        for number in MACHINES:
            speeds = [SPEEDS[i % len(SPEEDS)] for i in range(number)]
            machines = [SimulatedMachine(f"{i}", w / s, g / s) for i, s in enumerate(speeds)]
            step = simulate(machines, [1.0] * items, [1.0] * sums, size, 117e6, per_item=per_item)
            alone = alone or step.seconds
            gain = alone / step.seconds
            lines.append(
                f"| {number} | {step.seconds:.3g} | {gain:.2f}x | {gain / sum(speeds):.0%} | {step.idle:.0%} "
                f"| {step.received / 1e9:.2f} | {step.repeated} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=4, help="steps of each row; the first is not counted")
    parser.add_argument("--costs", type=Path, help="measured costs: written, or read by --simulate")
    parser.add_argument("--simulate", action="store_true", help="only simulate, by the costs of --costs")
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(one(options.one, options.steps)))
        return
    if options.simulate and options.costs is None:
        parser.error("--simulate reads the costs of an earlier run: name its file with --costs")
    if options.simulate:
        rows = json.loads(options.costs.read_text(encoding="utf-8"))
    else:
        rows = measured(options.steps)
        if options.costs is not None:
            options.costs.write_text(json.dumps(rows), encoding="utf-8")
    print(f"Measured here ({os.cpu_count()} cores): {PROMPTS * GROUP} rows of nano a step, at most {TOKENS} tokens.\n")
    print("\n".join([*table_measured(rows), *table_simulated(rows[0])]))


if __name__ == "__main__":
    main()
