"""Memory stays flat over hundreds of steps: nothing of a step is held when it is over."""

from __future__ import annotations

import gc
import random
import resource
import sys

import pytest

from azr_mlx.model import device

from .conftest import prompt


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_steps_of_sampling_and_learning_leave_memory_flat(load) -> None:
    """Lengths, widths and shared beginnings differ from step to step, as in a run."""
    policy = load("qwen3", rank=2, lr=1e-3, checkpoint_layers="true", max_rows=6)
    dice = random.Random(0)
    active: list[int] = []
    resident: list[int] = []
    for step in range(200):
        count, length = dice.randint(1, 4), dice.randint(8, 60)
        texts = ["shared beginning " * 3 + chr(97 + i) * length for i in range(count)]
        groups = policy.sample_all([prompt(t) for t in texts], 2, seed=(step,), max_tokens=dice.randint(2, 12))
        rollouts = [one for group in groups for one in group]
        policy.update(rollouts, [1.0 if i % 2 else -1.0 for i in range(len(rollouts))])
        del groups, rollouts
        gc.collect()
        device.clear_cache()
        active.append(device.memory().active)
        resident.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    # A scalar more or less may be alive after a step; none may stay for each of them.
    assert max(active[100:]) <= max(active[:100]), "arrays stay alive"
    assert max(active[1:]) - min(active[1:]) <= 64, "what is held between steps depends on nothing but the shape"
    unit = 1 if sys.platform == "darwin" else 1024
    assert (resident[-1] - resident[49]) * unit < 20e6, "the process grew"
