"""The path of a GPU, rehearsed on a CPU: packed 4-bit weights, bfloat16, adapters beside the weights.

The shapes are thin, the vocabulary has its real size: what is sliced, gathered and masked is what a real model has.
docs/gpu.md says what a rehearsal cannot show.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from azr_mlx import config, doctor
from azr_mlx.model import cpu_kernels, device
from azr_mlx.model.policy import Policy
from azr_mlx.types import Kind, Prompt, Role, Rollout
from tests.model.conftest import build_model

VOCABULARY = 151_936  # of every Qwen from 1.5 to 3
QWEN2 = {"architecture": "qwen2", "num_attention_heads": 2, "vocab_size": VOCABULARY}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2": QWEN2 | {"num_key_value_heads": 1},
    "qwen3": QWEN2 | {"architecture": "qwen3", "num_key_value_heads": 1, "head_dim": 64},
    # Qwen 1.5 is built as Qwen 2, with an output matrix of its own and as many key heads as query heads.
    "qwen1.5": QWEN2 | {"tied": False, "num_key_value_heads": 2},
    # A vocabulary of bytes, for whole runs.
    "bytes": {"architecture": "qwen3", "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32},
}
TEXTS = ("deduction 1", "x = 1")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("rehearsal")
    found = {}
    for name, shape in SHAPES.items():
        found[name] = root / name
        found[name].mkdir()
        build_model(found[name], num_hidden_layers=2, **shape)
    return found


@pytest.fixture(autouse=True)
def rehearsing() -> Iterator[device.Profile]:
    if device.prepare().name != "cpu":
        pytest.skip("there is a GPU here: nothing to rehearse")
    with device.rehearsal() as profile:
        yield profile


def load(folder: Path, **changes: Any) -> Policy:
    model = {"id": str(folder), "style": "compact", **changes}
    return Policy.load(
        config.ModelConfig(**model), config.LoraConfig(rank=4), config.OptimConfig(lr=1e-2),
        config.SamplingConfig(max_rows=8), config.LossConfig(), seed=0, total_steps=10,
    )  # fmt: skip


def rollouts(policy: Policy, texts: tuple[str, ...] = TEXTS, n: int = 2, tokens: int = 5) -> list[Rollout]:
    prompts = [Prompt(Role.SOLVE, Kind.DEDUCTION, text) for text in texts]
    return [one for group in policy.sample_all(prompts, n, seed=(1, 2), max_tokens=tokens) for one in group]


def gap(policy: Policy, found: list[Rollout]) -> np.ndarray:
    """|trainer's - sampler's log-probability| of every token, nats."""
    sampled = np.concatenate([np.array(one.completion.logprobs) for one in found])
    return np.abs(sampled - np.concatenate(policy.logprobs(found)))


def test_everything_that_is_decided_by_device_is_as_on_a_gpu(folders, rehearsing):
    import mlx.core as mx
    import mlx.nn as nn

    assert rehearsing.name == "rehearsal"
    assert not cpu_kernels.slow_exponential()
    policy = load(folders["bytes"])
    quantized = [
        m for _, m in policy.model.named_modules() if isinstance(m, (nn.QuantizedLinear, nn.QuantizedEmbedding))
    ]
    assert len(quantized) == 2 * 7 + 1
    assert all(m.weight.dtype == mx.uint32 and m.scales.dtype == mx.bfloat16 for m in quantized)
    assert policy.acting() is policy.backbone  # no second set of projections


def test_the_rehearsal_ends(folders):
    before = device._profile
    with device.rehearsal():
        pass
    assert device._profile is before


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "qwen1.5"])
def test_sampler_and_trainer_agree_and_the_policy_learns(name, folders):
    """The gap that this package's own code adds; a GPU's kernels for few and for many rows add theirs."""
    policy = load(folders[name])
    found = rollouts(policy, tokens=3)
    assert gap(policy, found).max() < 2e-3
    update = policy.update(found, [1.0, -1.0] * 2)
    assert np.isfinite([update.grad_norm, update.entropy, update.loss]).all()
    assert update.grad_norm > 0
    assert update.ratio_outside == 0
    after = rollouts(policy, TEXTS[:1], tokens=3)
    assert gap(policy, after).max() < 2e-3  # the sampler has the new adapters


def test_float16_is_finite_and_agrees_too(folders):
    policy = load(folders["bytes"], dtype="float16")
    found = rollouts(policy)
    assert gap(policy, found).max() < 2e-3
    assert np.isfinite(policy.update(found, [1.0, -1.0] * 2).grad_norm)


def test_packed_and_dense_weights_give_the_same_gradient(folders):
    """The same rollouts, packed in float32 here and dense as on a CPU: the same norm, the same adapters afterwards."""
    from mlx.utils import tree_flatten

    def updated(policy: Policy) -> tuple[float, np.ndarray]:
        update = policy.update(found, [1.0, -0.5] * 2)
        flat = tree_flatten(policy.model.trainable_parameters())
        return update.grad_norm, np.concatenate([np.array(value).ravel() for _, value in sorted(flat)])

    packed = load(folders["bytes"], dtype="float32")
    found = rollouts(packed)
    norm, adapters = updated(packed)
    known = device._profile
    device._profile = None
    try:
        dense_norm, dense = updated(load(folders["bytes"]))
    finally:
        device._profile = known
    assert norm == pytest.approx(dense_norm, rel=1e-3)
    # Adam's first step moves every weight by the rate in the direction of its gradient's sign.
    assert (np.abs(adapters - dense) < 1e-3).mean() > 0.99


def test_bfloat16_and_float32_agree_in_direction(folders):
    """The gradient in bfloat16 is that of float32 with noise: a wrong cast somewhere would leave little of it."""
    from mlx.utils import tree_flatten

    def step(dtype: str) -> np.ndarray:
        policy = load(folders["bytes"], dtype=dtype)
        before = {name: np.array(v, np.float32) for name, v in tree_flatten(policy.model.trainable_parameters())}
        policy.update(found, [1.0, -0.5] * 2)
        after = dict(tree_flatten(policy.model.trainable_parameters()))
        return np.concatenate([(np.array(after[k], np.float32) - v).ravel() for k, v in sorted(before.items())])

    found = rollouts(load(folders["bytes"], dtype="float32"))
    half, full = step("bfloat16"), step("float32")
    assert half @ full / np.linalg.norm(half) / np.linalg.norm(full) > 0.8


def test_a_row_is_the_same_alone_and_in_a_batch(folders):
    """MLX's kernels for CPUs compute each row by itself, so here even bfloat16 shows a wrong mask or position."""
    policy = load(folders["bytes"])
    texts = ("deduction\nprint(1)\n", "x", "a somewhat longer prompt than the other two, 12345")
    together = rollouts(policy, texts, n=2, tokens=8)
    for i, text in enumerate(texts):
        prompt = [Prompt(Role.SOLVE, Kind.DEDUCTION, text)]
        [alone] = policy.sample_all(prompt, 2, seed=(1, 2), max_tokens=8, names=[i])
        assert [one.completion.tokens for one in alone] == [
            one.completion.tokens for one in together[2 * i : 2 * i + 2]
        ]


def test_a_shared_prefix_changes_nothing(folders):
    """Prompts with a long common beginning, whose keys and values are computed once, against each alone."""
    policy = load(folders["bytes"])
    shared = "one beginning that both have, long enough to be worth sharing: " * 2
    texts = (f"{shared}first", f"{shared}second")
    together = rollouts(policy, texts, n=2, tokens=6)
    assert gap(policy, together).max() < 2e-3
    fresh = load(folders["bytes"])
    for i, text in enumerate(texts):
        prompt = [Prompt(Role.SOLVE, Kind.DEDUCTION, text)]
        [alone] = fresh.sample_all(prompt, 2, seed=(1, 2), max_tokens=6, names=[i])
        for one, other in zip(alone, together[2 * i : 2 * i + 2], strict=True):
            assert one.completion.tokens == other.completion.tokens


def test_the_doctor_finds_nothing_wrong(folders, monkeypatch):
    monkeypatch.setattr(doctor, "EMBEDDED", str(folders["bytes"]))
    found = list(doctor.self_test())
    assert [one.state for one in found if one.state == doctor.WRONG] == []


def test_the_doctor_checks_packed_products_and_their_gradient(monkeypatch):
    import mlx.core as mx

    assert [one.state for one in (*doctor.products(), *doctor.gradient())] == [doctor.FINE] * 2
    genuine = mx.quantized_matmul

    def wrong_from_nine_rows_on(x, *rest, **words):
        found = genuine(x, *rest, **words)
        return found * (1.0 if x.shape[0] < 9 else 1.5)

    monkeypatch.setattr(mx, "quantized_matmul", wrong_from_nine_rows_on)
    [products], [gradient] = doctor.products(), doctor.gradient()
    assert (products.state, gradient.state) == (doctor.WRONG, doctor.WRONG)
    assert "at 9 rows" in products.found
    assert "at 3 rows" not in products.found
    assert gradient.found.startswith("the gradient through packed weights is off at 9 rows (")


# A whole run, in processes of their own -------------------------------------------------------------------------------

SMALL = (
    "model.style=compact", "model.group_size=32", "lora.rank=4", "tasks.kinds=deduction", "tasks.references=1",
    "batch.proposals=1", "batch.attempts=1", "batch.solves=1", "batch.solve_group=2", "sampling.propose_tokens=8",
    "sampling.solve_tokens=6", "sampling.prompt_tokens=2000", "sampling.max_rows=8", "buffer.seed_size=1",
    "evaluation.probe=built-in", "evaluation.probe_tasks=1", "evaluation.samples=1", "checkpoint.every=1",
    "tracking.report=false", "tracking.rollouts=false", "batch.train_proposer=true", "optim.micro_batch_tokens=2048",
)  # fmt: skip


def azr(*words: str) -> list[str]:
    return [sys.executable, "-m", "azr_mlx", *words]


def environment() -> dict[str, str]:
    return {**os.environ, device.REHEARSAL_VARIABLE: "1"}


def run(*words: str) -> str:
    done = subprocess.run(azr(*words), env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def train(model: Path, folder: Path) -> tuple[str, ...]:
    sets = [word for pair in (("--set", one) for one in (f"model.id={model}", *SMALL)) for word in pair]
    preset = folder.parent / "small.yaml"
    preset.write_text("name: small\nsteps: 2\n")
    return ("train", "--config", str(preset), "--run-dir", str(folder), *sets)


@pytest.mark.timeout(900)  # three processes on a machine that may be busy
def test_a_run_that_is_killed_goes_on_as_if_it_had_not_been_and_is_exported(folders, tmp_path):
    """Train, kill, resume, export: the same metrics and adapters as without the kill."""
    said = run(*train(folders["bytes"], tmp_path / "whole"))
    assert "rehearsal" in said
    assert "band" in said  # the held-out table
    killed = subprocess.Popen(
        azr(*train(folders["bytes"], tmp_path / "killed")), env=environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while not (tmp_path / "killed" / "step-000001").is_dir() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    run("train", "--resume", str(tmp_path / "killed"))

    def rows(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]

    assert rows("killed") == rows("whole")
    last = [tmp_path / name / "step-000002" / "adapters.safetensors" for name in ("killed", "whole")]
    assert last[0].read_bytes() == last[1].read_bytes()
    run("export", str(tmp_path / "whole"), "--format", "mlx", "--out", str(tmp_path / "exported"))
    assert list((tmp_path / "exported").rglob("*.safetensors"))
