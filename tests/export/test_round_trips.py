"""What azr exports, loaded by the libraries that people use: it is the policy that was trained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from azr_mlx import config
from azr_mlx import export as exporter
from azr_mlx.model.policy import Policy
from tests.export.conftest import MakeRun, prompts, qwen_vocabulary

import mlx.core as mx  # isort: skip

# One fixture exports four formats of a model with 151,936 tokens: minutes, where other work takes most of the machine.
pytestmark = pytest.mark.timeout(1800)

GREEDY = 64
STDS = (1e-4, 1e-3, 1e-2)


def slow_unless(quick: bool, *values: object):
    return pytest.param(values, marks=[] if quick else pytest.mark.slow, id="-".join(map(str, values)))


@pytest.fixture(
    scope="module",
    params=[slow_unless(base == "qwen3", base, std) for base in ("qwen3", "qwen2") for std in STDS],
)
def exported(request, make_run: MakeRun, tmp_path_factory) -> tuple[Policy, Path]:
    """A running policy and the folder of all that was exported of it."""
    pytest.importorskip("torch", reason="torch is not installed: make hf-check installs it")
    base, std = request.param
    source = exporter.find_source(make_run(base, std))
    target = tmp_path_factory.mktemp("out") / "export"
    written = exporter.export_checkpoint(source, ("mlx", "peft", "hf", "base"), target)
    assert all(one.check.good for one in written)
    return exporter.running_policy(source), target


def transformer(folder: Path):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


def peft_model(target: Path):
    peft = pytest.importorskip("peft", reason="peft is not installed: make hf-check installs it")
    return peft.PeftModel.from_pretrained(transformer(target / "base"), target / "peft").eval()


def largest_difference(policy: Policy, model) -> float:
    """Over all logits of five prompts, all positions."""
    import torch

    worst = 0.0
    for prompt in prompts(5):
        tokens = policy.encode(prompt.text)
        ours = np.array(policy.backbone.logits(policy.backbone.hidden(mx.array([tokens]))))
        with torch.no_grad():
            theirs = model(torch.tensor([tokens])).logits.numpy()
        worst = max(worst, float(np.abs(ours - theirs).max()))
    return worst


def continuations(policy: Policy, model, count: int) -> list[tuple[list[int], list[int]]]:
    """Greedy continuations of prompts: the policy's and the other library's."""
    import torch

    asked = prompts(count)
    ours = policy.sample_all(asked, 1, seed=(0,), max_tokens=GREEDY, temperature=0.0)
    rows = [policy.encode(prompt.text) for prompt in asked]
    width, stop = max(map(len, rows)), sorted(policy.stop_tokens)
    padded = torch.tensor([[stop[0]] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    with torch.no_grad():
        said = model.generate(
            padded, attention_mask=mask, do_sample=False, max_new_tokens=GREEDY, eos_token_id=stop, pad_token_id=stop[0]
        )
    theirs = said[:, width:].tolist()
    pairs = []
    for (rollout,), row in zip(ours, theirs, strict=True):
        end = next((i + 1 for i, token in enumerate(row) if token in stop), len(row))
        pairs.append((list(rollout.completion.tokens), row[:end]))
    return pairs


def test_a_fused_model_in_transformers_is_the_policy(exported) -> None:
    policy, target = exported
    model = transformer(target / "hf")
    assert largest_difference(policy, model) < 1e-3
    for ours, theirs in continuations(policy, model, 20):
        assert ours == theirs


def test_peft_on_the_dequantized_base_is_the_policy(exported) -> None:
    policy, target = exported
    model = peft_model(target)
    assert largest_difference(policy, model) < 1e-3
    for ours, theirs in continuations(policy, model, 20):
        assert ours == theirs


def test_the_base_alone_is_not_the_policy(exported) -> None:
    """The comparisons above would be worth nothing if any model passed."""
    policy, target = exported
    model = transformer(target / "base")
    assert largest_difference(policy, model) > 1e-3
    with policy.reference():
        assert largest_difference(policy, model) < 1e-3


def test_the_exported_tokenizer_reads_and_writes_as_the_policy_does(exported) -> None:
    from transformers import AutoTokenizer

    policy, target = exported
    for name in ("hf", "peft", "base"):
        tokenizer = AutoTokenizer.from_pretrained(target / name)
        for prompt in prompts(5):
            assert tokenizer.encode(prompt.text) == policy.encode(prompt.text)
        ids = policy.encode("def f(a): return a + 12345  # hi\n\n  b")
        assert tokenizer.decode(ids) == policy.decode(ids)
        assert tokenizer.eos_token_id in policy.stop_tokens
        assert bool(tokenizer.chat_template) == policy.tokenizer.has_chat_template


def test_a_fused_model_in_shards_loads_in_transformers(make_run: MakeRun, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed: make hf-check installs it")
    policy = exporter.running_policy(exporter.find_source(make_run("untied", 1e-2)))
    exporter.write_fused(policy, tmp_path, shard=60_000)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 3
    assert largest_difference(policy, transformer(tmp_path)) < 1e-3


def test_layers_that_have_no_adapter_get_none_in_peft(make_run: MakeRun, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed: make hf-check installs it")
    run = make_run("untied", 1e-2, layers=2, keys=("self_attn.q_proj", "mlp.down_proj"))
    source = exporter.find_source(run)
    exporter.export_checkpoint(source, ("peft", "base"), tmp_path / "out")
    described = json.loads((tmp_path / "out/peft/adapter_config.json").read_text())
    assert described["layers_to_transform"] == [1, 2]
    assert described["target_modules"] == ["down_proj", "q_proj"]
    assert largest_difference(exporter.running_policy(source), peft_model(tmp_path / "out")) < 1e-3


# -- in mlx_lm, which needs no torch


@pytest.mark.parametrize("base", ["qwen3", pytest.param("qwen2", marks=pytest.mark.slow)])
def test_mlx_lm_generate_with_the_exported_adapter_writes_what_azr_writes(
    base: str, make_run: MakeRun, bases: dict[str, Path], tmp_path: Path
) -> None:
    if base == "qwen2" and not qwen_vocabulary():
        # It would write ids that stand for nothing, which mlx_lm shows as "!" and others as nothing.
        pytest.skip("Qwen's vocabulary is not installed: make hf-check installs it")
    source = exporter.find_source(make_run(base, 1e-2))
    exporter.export_checkpoint(source, ("mlx", "hf"), tmp_path / "out")
    policy = exporter.running_policy(source)
    (asked,) = prompts(1)
    ((rollout,),) = policy.sample_all([asked], 1, seed=(0,), max_tokens=32, temperature=0.0)
    ours = rollout.completion.text
    for words in (["--model", bases[base], "--adapter-path", tmp_path / "out/mlx"], ["--model", tmp_path / "out/hf"]):
        said = subprocess.run(
            [sys.executable, "-m", "mlx_lm", "generate", *words, "--prompt", asked.text, "--max-tokens", "32",
             "--temp", "0", "--ignore-chat-template", "--verbose", "False"],
            capture_output=True, text=True, check=True, timeout=200,
        )  # fmt: skip
        assert said.stdout.strip() == ours.strip()


def test_a_checkpoint_folder_is_an_adapter_folder_already(make_run: MakeRun, bases: dict[str, Path]) -> None:
    from mlx_lm import load

    source = exporter.find_source(make_run())
    policy = exporter.running_policy(source)
    model, _ = load(str(bases["qwen3"]), adapter_path=str(source.folder))
    tokens = mx.array([policy.encode(prompts(1)[0].text)])
    ours = policy.backbone.logits(policy.backbone.hidden(tokens))
    assert mx.abs(model(tokens) - ours).max().item() < 1e-3


def test_an_exported_model_can_be_trained_on(make_run: MakeRun, tmp_path: Path) -> None:
    """The way out leads back in: a fused export is a full-precision model like any other."""
    exporter.export_checkpoint(exporter.find_source(make_run("plain", 1e-2)), ("hf",), tmp_path / "out")
    policy = Policy.load(
        config.ModelConfig(id=str(tmp_path / "out/hf"), style="compact", group_size=32), config.LoraConfig(rank=2),
        config.OptimConfig(), config.SamplingConfig(), config.LossConfig(),
    )  # fmt: skip
    assert policy.sample_all(prompts(1), 1, seed=(0,), max_tokens=4)[0][0].completion.tokens
