"""Train from Python: what `azr train --config nano` does, with two small steps.

python examples/train.py
"""

from pathlib import Path

from azr_mlx import load, train

if __name__ == "__main__":  # the executor starts processes, and they import this file on some systems
    small = ["batch.proposals=4", "batch.attempts=4", "batch.solves=2", "buffer.seed_size=12", "buffer.seed_rounds=2"]
    settings = load("nano", ["steps=2", "minutes=0", *small, "evaluation.samples=1", "evaluation.probe_tasks=4"])
    folder = Path("checkpoints/example")
    raise SystemExit(train(settings, run_dir=folder, resume=str(folder) if folder.exists() else None))
