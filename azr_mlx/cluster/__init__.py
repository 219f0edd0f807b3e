"""Several machines work on one run: a coordinator shares out the items of a step, workers compute them.

The coordinator is the process of `azr train`. It owns everything a run consists of (buffer, optimizer, checkpoints,
metrics), judges every program in its own executor, and computes items itself while it waits. A worker holds a copy of
the model and nothing else: it fetches an item, computes it, sends numbers back, and writes no file.

The model side computes (azr_mlx.model.work); here is who computes what, and how it travels. The environment side never
imports this package, and neither does the trainer: it sees a policy.
"""
