"""The policy loads, learns, turns into its own reference, and comes back from disk as it was."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx.utils import tree_flatten

from azr_mlx import types
from azr_mlx.model import cpu_kernels
from azr_mlx.model.weights import ModelNotFound
from azr_mlx.types import Kind, Role
from tests.model.conftest import prompt

PROMPTS = [prompt(text) for text in ("a", "def f(x):", "a much longer prompt, which goes on")]


def rollouts_of(policy, seed=0, n=4):
    return [r for group in policy.sample_all(PROMPTS, n, seed=(seed,), max_tokens=20) for r in group]


def advantages_of(rollouts):
    return [(-1.0) ** i * (1 + i / 5) for i in range(len(rollouts))]


def learn(policy, steps=3, first=0):
    updates = []
    for step in range(first, first + steps):
        rollouts = rollouts_of(policy, step)
        updates.append(policy.update(rollouts, advantages_of(rollouts)))
    return updates


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert mx.array_equal(one[name], other[name]), name


def test_rollouts_come_in_order_with_their_prompt_and_text(load):
    policy = load()
    groups = policy.sample_all(PROMPTS, 3, seed=(1, 2), max_tokens=[5, 6, 7])
    for i, group in enumerate(groups):
        assert len(group) == 3
        for rollout in group:
            assert rollout.prompt is PROMPTS[i]
            assert list(rollout.prompt_tokens) == policy.encode(PROMPTS[i].text)
            written = rollout.completion
            ids = written.tokens[:-1] if written.stop is types.Stop.EOS else written.tokens
            assert written.text == policy.decode(ids)
            assert len(written.tokens) <= 5 + i
    streamed = {(i, j): r for i, j, r in policy.sample(PROMPTS, 3, seed=(1, 2), max_tokens=[5, 6, 7])}
    assert all(streamed[i, j] == groups[i][j] for i in range(3) for j in range(3))


def test_progress_counts_rows_and_tokens(load):
    told = []
    rows = load().sample_all(PROMPTS, 2, seed=(0,), max_tokens=9, progress=lambda *numbers: told.append(numbers))
    assert [(done, of) for done, of, _ in told] == [(i, 6) for i in range(1, 7)]
    assert told[-1][2] == sum(len(r.completion.tokens) for group in rows for r in group)


def test_prompts_that_join_a_conversation_are_answered_as_if_asked_at_once(load):
    policy = load()
    at_once = policy.sample_all(PROMPTS, 2, seed=(4,), max_tokens=8)
    session = policy.generate(seed=(4,))
    session.submit(PROMPTS[:1], 2, max_tokens=8)
    joined = {}
    for number, sample, rollout in session:
        if not joined:
            session.submit(PROMPTS[1:], 2, max_tokens=8)
        joined[number, sample] = rollout
    assert {(i, j): tokens(joined[i, j]) for i, j in joined} == {
        (i, j): tokens(rollout) for i, group in enumerate(at_once) for j, rollout in enumerate(group)
    }


def tokens(rollout: types.Rollout) -> tuple[int, ...]:
    return rollout.completion.tokens


def test_two_prompts_of_one_conversation_never_share_their_draws(load):
    session = load().generate(seed=(4,))
    session.submit(PROMPTS[:1], max_tokens=2, names=[7])
    with pytest.raises(ValueError, match="twice"):
        session.submit(PROMPTS[1:2], max_tokens=2, names=[7])


@pytest.mark.parametrize("family", ["qwen3", "qwen2", "qwen3-untied", "llama"])
def test_sampler_and_trainer_agree_on_logprobs_also_after_learning(load, family):
    policy = load(family)
    for update in learn(policy, 3):
        assert update.delta_logp_max < 1e-4
        assert update.ratio_outside == 0
    rollouts = rollouts_of(policy, 7)
    for rollout, exact in zip(rollouts, policy.logprobs(rollouts), strict=True):
        np.testing.assert_allclose(rollout.completion.logprobs, exact, atol=1e-4)


def test_learning_raises_the_probability_of_what_had_an_advantage(load):
    policy = load(lr=1e-3)
    rollouts = rollouts_of(policy)
    before = [lp.sum() for lp in policy.logprobs(rollouts)]
    policy.update(rollouts, [1.0] + [0.0] * (len(rollouts) - 1))
    after = [lp.sum() for lp in policy.logprobs(rollouts)]
    assert after[0] > before[0] + 0.1


def test_rows_without_advantage_change_nothing_but_the_mean(load):
    """A zero row adds its tokens to the denominator: the gradient shrinks by the share of tokens, nothing else."""
    whole, part = load(grad_clip=0.0), load(grad_clip=0.0)
    rollouts = rollouts_of(whole)
    advantages = [a if i % 3 else 0.0 for i, a in enumerate(advantages_of(rollouts))]
    kept = [(r, a) for r, a in zip(rollouts, advantages, strict=True) if a]
    one = whole.update(rollouts, advantages)
    other = part.update([r for r, _ in kept], [a for _, a in kept])
    assert one.rows == other.rows == len(kept)
    share = one.tokens / sum(len(r.completion.tokens) for r in rollouts)
    assert one.grad_norm == pytest.approx(share * other.grad_norm, rel=1e-5)
    assert one.loss == pytest.approx(share * other.loss, rel=1e-5)
    # Adam divides by the gradient's own size, so after one step from the same start the adapters agree.
    for name, value in whole.state().items():
        if name.startswith("adapter."):
            assert float(mx.abs(value - part.state()[name]).max()) < 1e-4


def test_a_batch_without_any_advantage_leaves_the_policy_alone(load):
    policy = load()
    learn(policy, 1)
    before = policy.state()
    rollouts = rollouts_of(policy, 5)
    update = policy.update(rollouts, [0.0] * len(rollouts))
    assert_same(policy.state(), before)
    assert (update.rows, update.tokens, update.loss, update.grad_norm) == (0, 0, 0, 0)


def test_small_micro_batches_give_the_same_step(load):
    one, many = load(grad_clip=0.0), load(grad_clip=0.0, micro_batch_tokens=64, checkpoint_layers="true")
    rollouts = rollouts_of(one)
    a, b = one.update(rollouts, advantages_of(rollouts)), many.update(rollouts, advantages_of(rollouts))
    assert (a.extra["micro_batches"], b.extra["micro_batches"] > 3) == (1, True)
    assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-5)
    assert a.loss == pytest.approx(b.loss, rel=1e-5, abs=1e-6)


def test_the_gradient_norm_is_clipped_but_reported_unclipped(load):
    free, clipped = load(grad_clip=0.0), load(grad_clip=1e-3)
    rollouts = rollouts_of(free)
    a, b = free.update(rollouts, advantages_of(rollouts)), clipped.update(rollouts, advantages_of(rollouts))
    assert a.grad_norm == b.grad_norm > 1e-2
    moment = {n: v for n, v in clipped.state().items() if n.startswith("optim.") and n.endswith(".m")}
    assert sum(float(mx.square(v).sum()) for v in moment.values()) ** 0.5 == pytest.approx(0.1 * 1e-3, rel=1e-2)


def test_reused_batches_are_clipped_and_kl_is_measured_to_the_adapters_off(load):
    policy = load(updates_per_batch=4, kl=0.1, lr=5e-2)
    rollouts = rollouts_of(policy)
    update = policy.update(rollouts, advantages_of(rollouts))
    assert update.clipped > 0
    assert update.kl > 0
    assert int(policy.optimizer.step.item()) == 4
    fresh = load(kl=0.1)
    assert fresh.update(rollouts, advantages_of(rollouts)).kl == pytest.approx(0, abs=1e-6)


def test_the_sampler_trainer_gap_is_weighed_when_old_logprobs_are_recomputed(load):
    policy = load(recompute_old_logprobs=True, importance_cap=1.5)
    rollouts = [
        types.Rollout(
            r.prompt, r.prompt_tokens, types.Completion(c.tokens, tuple(lp - 1 for lp in c.logprobs), c.text, c.stop)
        )
        for r in rollouts_of(policy)
        for c in [r.completion]
    ]
    update = policy.update(rollouts, advantages_of(rollouts))
    assert update.delta_logp_mean == pytest.approx(1.0, abs=1e-4)
    assert update.ratio_outside == 1.0
    assert update.extra["importance_capped"] == 1.0


def test_adapters_off_is_the_base_bit_for_bit(load, models):
    policy = load()
    fresh, rollouts = load(), rollouts_of(policy)
    learn(policy, 2)
    ids = mx.array([policy.encode("def f(x):")])
    with policy.reference():
        off = policy.model(ids)
        written = policy.sample_all(PROMPTS, 2, seed=(3,), max_tokens=10)
    assert mx.array_equal(off, fresh.model(ids))
    base, _ = mlx_lm.load(str(models["qwen3"]))
    mlx_lm.utils.quantize_model(base, {}, 32, 4)
    base = mlx_lm.utils.dequantize_model(base)
    cpu_kernels.fit(base)
    assert mx.array_equal(off, base(ids))
    assert written == fresh.sample_all(PROMPTS, 2, seed=(3,), max_tokens=10)
    assert not mx.array_equal(policy.model(ids), off)
    changed = policy.logprobs(rollouts)
    assert any(not np.array_equal(a, b) for a, b in zip(changed, fresh.logprobs(rollouts), strict=True))


def test_a_fresh_policy_is_the_model_and_its_adapters_follow_the_seed(load):
    one, same, other = load(seed=1), load(seed=1), load(seed=2)
    assert_same(one.state(), same.state())
    assert not mx.array_equal(
        one.state()["adapter.model.layers.0.mlp.up_proj.lora_a"],
        other.state()["adapter.model.layers.0.mlp.up_proj.lora_a"],
    )
    ids = mx.array([one.encode("hello")])
    assert mx.array_equal(one.model(ids), other.model(ids))
    a = one.state()["adapter.model.layers.0.mlp.down_proj.lora_a"]
    assert a.shape == (128, 4)
    assert 0.9 < float(mx.abs(a).max()) * 128**0.5 <= 1


def test_adapters_are_on_all_linear_layers_and_float32(load):
    state = load(dtype="bfloat16").state()
    adapted = {
        name.split(".layers.0.")[1].rsplit(".", 1)[0] for name in state if ".layers.0." in name and "adapter" in name
    }
    attention, mlp = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
    assert adapted == {f"self_attn.{x}" for x in attention} | {f"mlp.{x}" for x in mlp}
    assert all(v.dtype == mx.float32 for n, v in state.items() if n.startswith("adapter."))
    assert not any("embed" in name or "lm_head" in name for name in state)


def test_state_goes_round_and_the_next_updates_are_identical(load, tmp_path):
    straight = load()
    learn(straight, 5)
    first = load()
    learn(first, 3)
    mx.save_safetensors(str(tmp_path / "state.safetensors"), first.state())
    resumed = load(seed=99)
    resumed.load_state(mx.load(str(tmp_path / "state.safetensors")))
    assert_same(resumed.state(), first.state())
    learn(resumed, 2, first=3)
    assert_same(resumed.state(), straight.state())
    with pytest.raises(ValueError, match="LoRA settings"):
        load(rank=4, layers=2).load_state(first.state())
    with pytest.raises(ValueError, match="shape"):
        load(rank=2).load_state(first.state())


def test_mlx_lm_itself_loads_the_adapter_and_computes_the_same(load, models, tmp_path):
    policy = load("quantized")
    learn(policy, 2)
    policy.save_adapter(tmp_path)
    ids = mx.array([policy.encode("def f(x):")])
    theirs, _ = mlx_lm.load(str(models["quantized"]), adapter_path=str(tmp_path))
    mlx_lm.utils.dequantize_model(theirs)
    for _, layer in theirs.named_modules():  # it leaves the layers inside adapters packed
        if hasattr(layer, "lora_a"):
            mlx_lm.utils.dequantize_model(layer)
    np.testing.assert_allclose(theirs(ids), policy.model(ids), atol=1e-4)
    cpu_kernels.fit(theirs)
    assert mx.array_equal(theirs(ids), policy.model(ids))
    assert json.loads((tmp_path / "adapter_config.json").read_text())["lora_parameters"]["rank"] == 4
    again = load("quantized", adapter=tmp_path)
    assert mx.array_equal(again.model(ids), policy.model(ids))
    with pytest.raises(ValueError):
        load("quantized", adapter=tmp_path, rank=8)


def test_learning_is_the_same_in_another_process(load, models, tmp_path):
    script = tmp_path / "learn.py"
    script.write_text(
        "import sys\n"
        f"sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[2])!r}]\n"
        "import mlx.core as mx, test_policy\n"
        "from azr_mlx import config\n"
        "from azr_mlx.model.policy import Policy\n"
        f"model = config.ModelConfig(id={str(models['qwen3'])!r}, style='compact', group_size=32)\n"
        "parts = config.LoraConfig(rank=4), config.OptimConfig(lr=1e-2), config.SamplingConfig(), config.LossConfig()\n"
        "p = Policy.load(model, *parts, total_steps=100)\n"
        "print([(u.loss, u.grad_norm, u.entropy) for u in test_policy.learn(p, 3)])\n"
        "mx.save_safetensors(sys.argv[1], p.state())\n"
    )
    out = subprocess.run(
        [sys.executable, script, tmp_path / "s.safetensors"], capture_output=True, text=True, check=True
    )
    policy = load()
    assert out.stdout.strip() == str([(u.loss, u.grad_norm, u.entropy) for u in learn(policy, 3)])
    assert_same(mx.load(str(tmp_path / "s.safetensors")), policy.state())


def test_no_global_random_state_is_read(load):
    one = load()
    mx.random.seed(123)
    other = load()
    learn(one, 1)
    mx.random.seed(456)
    learn(other, 1)
    assert_same(one.state(), other.state())


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("inverse_sqrt", [0.25, 0.5, 0.75, 1.0, 1.0, 0.894427, 0.816497, 0.755929, 0.707107]),
        ("linear", [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]),
        ("cosine", [0.25, 0.5, 0.75, 1.0, 1.0, 0.853553, 0.5, 0.146447, 0.0]),
    ],
)
def test_schedules(load, schedule, rates):
    policy = load(lr=1.0, schedule=schedule, warmup_steps=4, total_steps=8)
    seen = []
    for step in range(9):
        policy.optimizer.state["step"] = mx.array(step, dtype=mx.uint64)
        seen.append(policy.learning_rate())
    assert seen == pytest.approx(rates, abs=1e-6)


def test_chat_template_is_applied_without_thinking_unless_asked(load):
    assert load().render_chat("Hi", "```") == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n```"
    )
    assert load(thinking=True).render_chat("Hi").endswith("<|im_start|>assistant\n")


def test_a_conversation_has_its_earlier_turns_in_the_template(load):
    assert load(thinking=True).render_chat("C", "```", [("A", "B")]) == (
        "<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n"
        "<|im_start|>user\nC<|im_end|>\n<|im_start|>assistant\n```"
    )


def test_each_prompt_ends_its_completions_with_its_own_stop_texts(load):
    policy = load()
    (free,) = policy.sample_all([prompt("a")], 1, seed=(3,), max_tokens=20)
    first, later = (free[0].completion.text[i] for i in (3, 9))
    prompts = [types.Prompt(Role.SOLVE, Kind.DEDUCTION, "a", stop=stop) for stop in ((first,), (), (later,))]
    session = policy.generate(seed=(3,))
    session.submit(prompts, max_tokens=20, names=(0, 1, 2))
    written = {number: rollout.completion for number, _, rollout in session}
    for number, end in ((0, first), (2, later)):
        assert written[number].stop is types.Stop.TEXT or end not in written[number].text
        assert end not in written[number].text[:-1]
    assert written[0].text == free[0].completion.text[: free[0].completion.text.index(first) + 1]
    assert written[1].stop is not types.Stop.TEXT


def test_think_tags_are_plain_text_for_base_models_and_tokens_for_others(load):
    text = "<think> x </think><|im_end|>"
    as_token, as_text = load(style="chat").encode(text), load(style="r1").encode(text)
    assert len(as_token) == 1 + 3 + 1 + 1
    assert len(as_text) == 7 + 3 + 8 + 1
    assert load().decode(as_token) == load().decode(as_text) == text


def test_what_cannot_be_is_refused_in_one_line(load, tmp_path):
    policy = load()
    rollouts = rollouts_of(policy)
    with pytest.raises(ValueError, match="12 rollouts but 1"):
        policy.update(rollouts, [1.0])
    with pytest.raises(ValueError, match="not finite"):
        policy.update(rollouts, [float("nan")] * len(rollouts))
    with pytest.raises(ValueError, match=r"self_attn\.q_proj"):
        load(keys=("q_proj",))
    from azr_mlx import config
    from azr_mlx.model import weights

    with pytest.raises(ModelNotFound, match=r"no model folder at \./nowhere"):
        weights.resolve(config.ModelConfig(id="./nowhere"))
    with pytest.raises(ModelNotFound, match=r"no config.json"):
        weights.resolve(config.ModelConfig(id=str(tmp_path)))


def test_files_may_be_opened_as_before():
    """Importing mlx_lm lowers the limit of open files for this process and its children; the policy puts it back."""
    look = "getrlimit(RLIMIT_NOFILE)"
    code = f"from resource import *; before = {look}; import azr_mlx.model.policy; print(before == {look})"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert out.stdout.strip() == "True"


def test_training_does_not_let_memory_grow(load):
    policy = load()
    rollouts = rollouts_of(policy, n=1)
    active = []
    for _ in range(10):
        policy.update(rollouts, advantages_of(rollouts))
        list(policy.sample(PROMPTS, 2, seed=(0,), max_tokens=3))
        gc.collect()  # what other tests left behind
        active.append(mx.get_active_memory())
    # Buffers are reused in other sizes, so the figure trembles; a leak of one batch's arrays would add up.
    assert max(active[5:]) <= 1.05 * max(active[:5])


def test_only_adapters_are_trained(load):
    policy = load()
    base = {n: v for n, v in tree_flatten(policy.model.parameters()) if "lora" not in n}
    learn(policy, 1)
    for name, value in tree_flatten(policy.model.parameters()):
        if "lora" not in name:
            assert mx.array_equal(value, base[name])


def test_a_policy_that_holds_less_at_once_writes_and_learns_the_same(load):
    whole, less = load(), load()
    shrunk = [less.shrink() for _ in range(9)]
    assert shrunk[0].startswith(f"{whole.sampling.max_rows // 2} rows at a time and ")
    assert shrunk[-1] == ""  # one row, and there is nothing left to halve
    assert less.sampling.max_rows == 1
    rollouts = rollouts_of(whole)
    assert [r.completion.tokens for r in rollouts_of(less)] == [r.completion.tokens for r in rollouts]
    one, other = (policy.update(rollouts, advantages_of(rollouts)) for policy in (whole, less))
    assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-4)
