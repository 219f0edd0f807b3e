"""What a step of a preset computes here and in another checkout of this project, counted and measured, in one run.

    git worktree add --detach ../before COMMIT
    python benchmarks/speed/step_beside.py --before ../before --tokenizer FOLDER

Each side simulates steps of its own preset (simulate.py: real prompts of its own wording, the same assumed replies).
Counted: tokens and operations of the preset's whole model, for the last of the steps. Measured: processor seconds of
the prefill and the update of a part of the step, one task kind with few proposals, on two blocks of real width and the
real vocabulary with random weights; both sides take turns. Decoding is left out of the measurement: it has not changed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[2]
# What an M3 Max with 48 GB keeps of a forward pass: blocks are computed again before, projections kept since.
KEPT = {"before": ("true", 6), "after": ("projections", 4)}
THIN = {
    "model_type": "qwen2", "hidden_size": 2048, "num_hidden_layers": 2, "intermediate_size": 11008,
    "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151936, "rope_theta": 1e6,
    "tie_word_embeddings": True,
}  # fmt: skip
# A part of a step that a CPU computes in a minute or two. Drawn tasks of the new presets come in groups.
PART = {
    "before": ["tasks.kinds=deduction", "batch.proposals=2", "batch.solves=2", "buffer.seed_size=4"],
    "after": [
        "tasks.kinds=deduction",
        "batch.proposals=2",
        "batch.solves=1",
        "batch.solve_group=2",
        "buffer.seed_size=4",
    ],
}


def rows_of(file: Path) -> tuple[list[Any], list[Any]]:
    """(learned: prompt, completion, advantage; written: prompt, length) of a file of simulate.py."""
    said = json.loads(file.read_text())
    return said["learned"], said["written"]


def count(file: Path, budget: int) -> dict[str, float]:
    """Tokens of a simulated step by the packing of the package that is imported."""
    import numpy as np

    from azr_mlx.model import device

    device.prepare()
    from azr_mlx.model import sampler

    try:
        from azr_mlx.model import packing as old_or_new
    except ImportError:  # a checkout from before packing.py
        from azr_mlx.model import loss as old_or_new  # type: ignore[no-redef]
    packing: Any = old_or_new
    learned, written = rows_of(file)
    rows = [packing.Example(tuple(p), tuple(c), np.zeros(len(c), np.float32), a) for p, c, a in learned if a]
    packs = packing.micro_batches(rows, budget, share=True)
    if hasattr(packing.Batch, "of"):
        batches = [packing.Batch.of(rows, pack) for pack in packs]
    else:
        batches = [packing.Batch.pad([rows[i] for i in pack.rows], pack.shared) for pack in packs]
    found = [0]

    def extend(node: Any, prefix: tuple[int, ...]) -> Any:
        found[0] += len(prefix) - node.depth
        return sampler._Node(len(prefix), None, (*node.key, prefix))

    decoder: Any = sampler.Decoder.__new__(sampler.Decoder)
    decoder.prefixes, decoder._extend = {}, extend
    for node, members in decoder._share(sorted({tuple(p) for p, _ in written}), sampler._Node(0, None)):
        found[0] += sum(len(one) - node.depth for one in members)
    distinct = {row.prompt for row in rows}
    return {
        "rollouts": len(written), "trained": len(rows), "prefill": found[0], "sampled": sum(n for _, n in written),
        "update": sum(batch.computed for batch in batches), "packs": len(packs),
        "prompts": sum(map(len, distinct)), "completions": sum(len(row.completion) for row in rows),
        "pairs": sum(len(p) ** 2 / 2 for p in distinct)
        + sum(len(row.completion) * (len(row.prompt) + len(row.completion) / 2) for row in rows),
    }  # fmt: skip


def measure(file: Path, model: Path, kept: str, budget: int) -> None:
    """Serve measurements: a line in, processor seconds of (prefill, update) out."""
    from azr_mlx import config
    from azr_mlx.model import sampler
    from azr_mlx.model.policy import Policy
    from azr_mlx.types import Completion, Kind, Prompt, Role, Rollout, Stop

    told: Any = kept if isinstance(config.OptimConfig().checkpoint_layers, str) else kept == "true"
    policy: Any = Policy.load(
        config.ModelConfig(id=str(model), style="compact"), config.LoraConfig(),
        config.OptimConfig(micro_batch_tokens=budget, checkpoint_layers=told), config.SamplingConfig(),
        config.LossConfig(),
    )  # fmt: skip
    learned, written = rows_of(file)
    prompt = Prompt(Role.SOLVE, Kind.DEDUCTION, "x")
    rollouts = [Rollout(prompt, tuple(p), Completion(tuple(c), (-5.0,) * len(c), "", Stop.EOS)) for p, c, _ in learned]
    # Every rollout is learned from: in so small a part groups without a signal would be all of it.
    advantages = [a or (-1.0) ** i for i, (*_, a) in enumerate(learned)]
    requests = [sampler.Request(tuple(p), (i,), 1) for i, (p, _) in enumerate(written)]
    for _ in sys.stdin:
        acting = policy.acting() if hasattr(policy, "acting") else policy._acting()
        start = time.process_time()
        list(sampler.generate(acting, requests, seed=(0,), max_rows=64))
        middle = time.process_time()
        update = policy.update(rollouts, advantages)
        end = time.process_time()
        print(json.dumps([middle - start, end - middle, update.extra["computed_tokens"]]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout of an older commit")
    parser.add_argument("--tokenizer", type=Path, help="a folder with the tokenizer.json of the preset's family")
    parser.add_argument("--config", default="qwen2.5-coder-3b")
    parser.add_argument("--steps", type=int, default=3, help="simulated steps, of which the last is counted")
    parser.add_argument("--repeat", type=int, default=1, help="measured turns; 0 counts only")
    parser.add_argument("--root", type=Path, default=Path(tempfile.gettempdir()) / "azr-bench")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        what, file, *words = args.child
        if what == "count":
            print(json.dumps(count(Path(file), int(words[0]))))
        else:
            measure(Path(file), Path(words[0]), words[1], int(words[2]))
        return
    if not (args.before and args.tokenizer):
        parser.error("--before and --tokenizer are needed")
    sides = {"before": args.before.resolve(), "after": HERE}
    with tempfile.TemporaryDirectory() as folder:
        counted = {}
        for side, root in sides.items():
            file = Path(folder) / f"{side}.json"
            simulate(root, args.config, [], args.steps, args.tokenizer, file)
            counted[side] = json.loads(child(root, "count", file, budget_of(root, args.config)))
        show(args.config, counted)
        if args.repeat:
            seconds = turns(sides, args, Path(folder))
            show_seconds(seconds)


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root)}


def child(root: Path, *words: object) -> str:
    command = [sys.executable, __file__, "--child", *map(str, words)]
    return subprocess.run(command, env=environment(root), check=True, capture_output=True, text=True).stdout


def simulate(root: Path, preset: str, sets: list[str], steps: int, tokenizer: Path, file: Path) -> None:
    """A simulated step by the checkout's own simulate.py, or by one of this folder that its package can run."""
    own = root / "benchmarks/speed/simulate.py"
    script = own if own.is_file() else root / "simulate.py"
    if not script.is_file():
        raise SystemExit(f"{root} has no benchmarks/speed/simulate.py: put one that its package can run at {script}")
    words = [word for one in sets for word in ("--set", one)]
    command = [sys.executable, str(script), "--config", preset, "--steps", str(steps), "--tokenizer", str(tokenizer)]
    subprocess.run([*command, "--json", str(file), *words], env=environment(root), cwd=root, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip


def budget_of(root: Path, preset: str) -> int:
    code = f"from azr_mlx import config; print(config.load({preset!r}).optim.micro_batch_tokens)"
    said = subprocess.run([sys.executable, "-c", code], env=environment(root), cwd=root, check=True,
                          capture_output=True, text=True)  # fmt: skip
    return int(said.stdout)


def turns(sides: dict[str, Path], args: argparse.Namespace, folder: Path) -> dict[str, list[list[float]]]:
    """Processor seconds of (prefill, update) of both sides, taking turns."""
    from azr_mlx.bench.random_model import write_random_model

    model = write_random_model(THIN, args.root / "qwen2.5-3b-2-layers")
    servers = {}
    for side, root in sides.items():
        file = folder / f"{side}-part.json"
        simulate(root, args.config, PART[side], 1, args.tokenizer, file)
        words = [sys.executable, __file__, "--child", "measure", file, model, KEPT[side][0], 4096]
        servers[side] = subprocess.Popen(
            list(map(str, words)), env=environment(root), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    found: dict[str, list[list[float]]] = {side: [] for side in sides}
    try:
        for _ in range(args.repeat):
            for side, server in servers.items():
                assert server.stdin is not None
                assert server.stdout is not None
                server.stdin.write("go\n")
                server.stdin.flush()
                found[side].append(json.loads(server.stdout.readline()))
    finally:
        for server in servers.values():
            server.communicate()
    return found


def show(preset: str, counted: dict[str, dict[str, float]]) -> None:
    """Tokens and operations of the whole model; attention by the pairs that are needed, so that both sides compare."""
    from azr_mlx import config, planner
    from azr_mlx.model.flops import Dimensions
    from azr_mlx.model.held import OPTIONS
    from azr_mlx.planner.roofline import dimensions

    settings = config.load(preset)
    shape = planner.shape_of(settings.model)
    size: Dimensions = dimensions(settings, shape)
    machine = planner.mac(48e9, "M3 Max")
    print(f"{preset}: a simulated step, counted; operations of {shape.layers} blocks")
    names = ("rollouts", "trained", "prefill", "sampled", "prompts", "completions", "update", "packs")
    print(
        f"{'':<8}" + "".join(f"{name:>13}" for name in names) + f"{'PFLOP update':>14}{'a token':>10}{'PFLOP step':>12}"
    )
    each = {}
    for side, one in counted.items():
        keep = OPTIONS[KEPT[side][0]]
        update = size.gradient(one["update"], one["pairs"], one["completions"])
        update += size.again(one["update"], one["pairs"], keep)
        writing = size.forward(one["prefill"] + one["sampled"], one["pairs"]) + size.head(one["sampled"])
        each[side] = (update / one["completions"], (update + writing) / one["completions"])
        print(
            f"{side:<8}" + "".join(f"{one[name]:>13,.0f}" for name in names)
            + f"{update / 1e15:>14.3f}{update / one['completions'] / 1e9:>9.1f}G{(update + writing) / 1e15:>12.3f}"
        )  # fmt: skip
    ratios = [old / new for old, new in zip(each["before"], each["after"], strict=True)]
    print(
        f"for each trained completion token: the update {ratios[0]:.2f} times less, the step {ratios[1]:.2f} times less"
    )
    costs = planner.step_costs(settings, shape, machine)
    print(f"planned after: update {costs[-1].flops / 1e15:.3f} PFLOP, "
          f"step {sum(cost.flops for cost in costs) / 1e15:.3f} PFLOP, "
          f"{sum(cost.seconds for cost in costs):.0f} s on {machine.name}")  # fmt: skip


def show_seconds(seconds: dict[str, list[list[float]]]) -> None:
    print("\nprocessor seconds of a part of a step on 2 blocks of width 2,048, vocabulary 151,936 (medians)")
    print(f"{'':<8}{'prefill':>10}{'update':>10}{'both':>10}{'tokens of the update':>24}")
    middle = {}
    for side, rows in seconds.items():
        prefill, update, tokens = (statistics.median(column) for column in zip(*rows, strict=True))
        middle[side] = (prefill, update)
        print(f"{side:<8}{prefill:>10.1f}{update:>10.1f}{prefill + update:>10.1f}{tokens:>24,.0f}")
    (a, b), (c, d) = middle["before"], middle["after"]
    print(f"before / after: prefill {a / c:.2f}, update {b / d:.2f}, both {(a + b) / (c + d):.2f}")


if __name__ == "__main__":
    main()
