"""Decoders beside Qwen and Llama, thin and random: what their parts give is what they give, or they are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from azr_mlx import config
from azr_mlx.errors import AzrError
from azr_mlx.model.policy import Policy
from tests.model.conftest import build_model, prompt

import mlx.core as mx  # isort: skip

MIXTURE = {"num_experts": 4, "num_experts_per_tok": 2, "decoder_sparse_step": 1, "mlp_only_layers": [],
           "moe_intermediate_size": 32, "norm_topk_prob": True}  # fmt: skip
SCALED = {"logits_scaling": 8.0, "attention_multiplier": 0.1, "embedding_multiplier": 2.0, "residual_multiplier": 0.5,
          "attention_bias": False, "mlp_bias": False}  # fmt: skip
CAPPED = {"query_pre_attn_scalar": 16, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
TEXTS = ("deduction 1", "a prompt that is longer than the window of eight tokens, x = 1")


def load(folder: Path) -> Policy:
    return Policy.load(
        config.ModelConfig(id=str(folder), style="compact", group_size=32), config.LoraConfig(rank=4),
        config.OptimConfig(lr=1e-2), config.SamplingConfig(), config.LossConfig(), seed=0, total_steps=10,
    )  # fmt: skip


def gemma3(folder: Path) -> Path:
    """As Gemma 3 is saved: every second layer sees a window of 8 tokens, and the output matrix is the embedding's."""
    build_model(folder, "gemma3_text", sliding_window=8, sliding_window_pattern=2, query_pre_attn_scalar=16)
    weights: Any = mx.load(str(folder / "model.safetensors"))
    del weights["lm_head.weight"]
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"] * 0.1  # nothing is certain
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    return folder


def written(policy: Policy, texts: tuple[str, ...] = TEXTS) -> list[Any]:
    groups = policy.sample_all([prompt(text) for text in texts], 2, seed=(1, 2), max_tokens=12)
    return [rollout for group in groups for rollout in group]


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return load(gemma3(tmp_path_factory.mktemp("gemma3")))


def test_gemma_3_samples_what_its_trainer_computes_beyond_its_window_and_learns(gemma: Policy) -> None:
    rollouts = written(gemma)
    assert max(len(one.prompt_tokens) for one in rollouts) > 3 * 8
    for learned in (False, True):
        found = written(gemma) if learned else rollouts
        sampled = np.concatenate([np.array(one.completion.logprobs) for one in found])
        assert np.abs(sampled - np.concatenate(gemma.logprobs(found))).max() < 1e-4
        if not learned:
            assert gemma.update(found, [1.0, -1.0, 1.0, -1.0]).grad_norm > 0


def test_gemma_3_is_the_model_of_mlx_lm_token_by_token_with_its_own_rotating_cache(gemma: Policy) -> None:
    from mlx_lm.models.cache import make_prompt_cache

    gemma.load_state({name: mx.zeros_like(v) if name.endswith("lora_b") else v for name, v in gemma.state().items()})
    ours = gemma.sample_all([prompt(TEXTS[1])], 1, seed=(1,), max_tokens=12, temperature=0)[0][0]
    cache = make_prompt_cache(gemma.model)
    logits = gemma.model(mx.array([ours.prompt_tokens]), cache=cache)[:, -1]
    theirs = []
    for _ in ours.completion.tokens:
        theirs.append(int(logits.argmax().item()))
        logits = gemma.model(mx.array([[theirs[-1]]]), cache=cache)[:, -1]
    assert tuple(theirs) == ours.completion.tokens


def test_the_experts_of_a_mixture_have_adapters_that_sample_and_learn(tmp_path: Path) -> None:
    policy = load(build_model(tmp_path, "qwen3_moe", **MIXTURE))
    rollouts = written(policy)
    sampled = np.concatenate([np.array(one.completion.logprobs) for one in rollouts])
    assert np.abs(sampled - np.concatenate(policy.logprobs(rollouts))).max() < 1e-4
    assert policy.update(rollouts, [1.0, -1.0, 1.0, -1.0]).grad_norm > 0
    with policy.reference():  # adapters of every class are off
        assert {layer.scale for layer in policy._adapted()} == {0.0}


@pytest.mark.parametrize(("architecture", "changes"), [("gemma2", CAPPED), ("granite", SCALED)])
def test_a_model_that_caps_or_scales_its_logits_is_refused_by_its_kind(
    tmp_path: Path, architecture: str, changes: dict[str, Any]
) -> None:
    """They would be sampled and trained as another model than the one that was published."""
    folder = build_model(tmp_path, architecture, **changes)
    with pytest.raises(AzrError, match=rf"is of a kind \({architecture}\) that cannot .*scale or cap"):
        load(folder)
