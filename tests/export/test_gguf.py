"""GGUF: names, order and metadata as llama.cpp expects them, read back by its library; logits where it is installed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from azr_mlx import config, export
from azr_mlx.errors import AzrError, UsageError
from azr_mlx.export import gguf as ours
from azr_mlx.export.fused import fused_tensors
from azr_mlx.export.peft import adapted
from azr_mlx.export.source import running_policy
from tests.export.conftest import MakeRun, prompts
from tests.model.conftest import build_model

gguf = pytest.importorskip("gguf", reason="gguf is not installed")

import mlx.core as mx  # noqa: E402


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama with grouped heads and Llama 3's rotary scaling, in full precision."""
    scaling = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    return build_model(tmp_path_factory.mktemp("llama"), "llama", rope_scaling=scaling, rope_theta=1e4)


def with_a_merge(folder: Path) -> Path:
    """The model with a pair of letters as a token of its own: a tokenizer without any is not one to llama.cpp."""
    path = folder / "tokenizer.json"
    described = json.loads(path.read_text())
    described["model"]["vocab"]["ab"] = 270  # a row of the embedding that no token has
    described["model"]["merges"] = [["a", "b"]]
    path.write_text(json.dumps(described))
    return folder


@pytest.fixture(scope="module")
def policies(
    make_run: MakeRun, bases: dict[str, Path], llama: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """A policy with adapters that do something, of each architecture."""
    qwen2 = shutil.copytree(bases["untied"], tmp_path_factory.mktemp("qwen2") / "model")
    mine = bases | {"gguf-qwen2": with_a_merge(qwen2), "gguf-llama": with_a_merge(llama)}
    bases.update(mine)  # make_run takes a base by its name
    return {
        name: running_policy(export.find_source(make_run(base, std=0.05)))
        for name, base in (("qwen3", "qwen3"), ("qwen2", "gguf-qwen2"), ("llama", "gguf-llama"))
    }


ARCHITECTURES = ("qwen3", "qwen2", "llama")


def fields(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


# -- the whole model


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_every_weight_is_read_back_in_its_number_format(
    policies: dict[str, Any], tmp_path: Path, name: str, dtype: str
) -> None:
    policy = policies[name]
    ours.write_model(policy, tmp_path / "model.gguf", "m", dtype)
    read = dict(ours.read_tensors(policy, tmp_path / "model.gguf"))
    wanted = {tensor.name: tensor for tensor in fused_tensors(policy)}
    assert set(read) == set(wanted)
    kind = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}[dtype]
    for key, tensor in wanted.items():
        values = tensor.rows(0, tensor.shape[0])
        rounded = values.astype(kind if values.ndim > 1 else mx.float32).astype(mx.float32)
        assert np.array_equal(read[key], np.array(rounded)), key


def test_names_are_those_of_llama_cpp(policies: dict[str, Any], tmp_path: Path) -> None:
    ours.write_model(policies["qwen2"], tmp_path / "m.gguf", "m")
    names = {tensor.name for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    block = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "attn_norm", "ffn_norm")
    assert {f"blk.0.{part}.weight" for part in block} <= names
    assert {"blk.0.attn_q.bias", "token_embd.weight", "output.weight", "output_norm.weight"} <= names


def test_a_tied_output_matrix_is_not_written_twice(policies: dict[str, Any], tmp_path: Path) -> None:
    ours.write_model(policies["qwen3"], tmp_path / "m.gguf", "m")
    names = {tensor.name for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert "output.weight" not in names
    assert "blk.0.attn_q_norm.weight" in names


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_shape_is_said_in_llama_cpp_s_words(policies: dict[str, Any], tmp_path: Path, name: str) -> None:
    policy = policies[name]
    ours.write_model(policy, tmp_path / "m.gguf", "a name", origin="Qwen/Qwen2.5-Coder-3B")
    said, args = fields(tmp_path / "m.gguf"), policy.model.args
    assert (said["general.architecture"], said["general.type"], said["general.name"]) == (name, "model", "a name")
    assert said["general.base_model.0.name"] == "Qwen2.5-Coder-3B"
    expected = {
        "block_count": args.num_hidden_layers, "embedding_length": args.hidden_size,
        "feed_forward_length": args.intermediate_size, "attention.head_count": args.num_attention_heads,
        "attention.head_count_kv": args.num_key_value_heads, "rope.freq_base": args.rope_theta,
        "vocab_size": args.vocab_size,
    }  # fmt: skip
    assert {key: said[f"{name}.{key}"] for key in expected} == pytest.approx(expected)
    assert said[f"{name}.attention.layer_norm_rms_epsilon"] == pytest.approx(args.rms_norm_eps)


def test_llama_s_heads_are_written_in_neighbouring_pairs(policies: dict[str, Any], tmp_path: Path) -> None:
    """Rotating neighbours of what is in the file gives the same as rotating halves of what is in the model."""
    policy = policies["llama"]
    ours.write_model(policy, tmp_path / "m.gguf", "m", "f32")
    read = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    [mine] = [t for t in fused_tensors(policy) if t.name == "model.layers.0.self_attn.k_proj.weight"]
    theirs, own = read["blk.0.attn_k.weight"], np.array(mine.rows(0, mine.shape[0]))
    width = mine.shape[0] // policy.model.args.num_key_value_heads
    assert not np.array_equal(theirs, own)
    for head in range(policy.model.args.num_key_value_heads):
        a, b = own[head * width : (head + 1) * width], theirs[head * width : (head + 1) * width]
        assert np.array_equal(b[0::2], a[: width // 2])
        assert np.array_equal(b[1::2], a[width // 2 :])


def test_llama_3_s_rotary_factors_are_those_of_the_model(policies: dict[str, Any]) -> None:
    policy = policies["llama"]
    factors = ours._rotary_factors(policy)
    rope = policy.model.layers[0].self_attn.rope
    width = policy.model.args.head_dim or policy.model.args.hidden_size // policy.model.args.num_attention_heads
    plain = policy.model.args.rope_theta ** (np.arange(0, width, 2) / width)
    np.testing.assert_allclose(factors * plain, np.array(rope._freqs), rtol=1e-4)


def test_other_rotary_scalings_are_refused_in_one_line() -> None:
    args = SimpleNamespace(model_type="llama", rope_scaling={"rope_type": "su"})
    policy = SimpleNamespace(settings={"model_type": "llama"}, model=SimpleNamespace(args=args))
    with pytest.raises(UsageError, match="rotary scaling su has no GGUF form"):
        ours.check_gguf(policy)


def test_other_architectures_are_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="gemma3 has no GGUF form here: qwen2, qwen3, llama have"):
        ours.check_gguf(SimpleNamespace(settings={"model_type": "gemma3"}))


# -- the tokenizer


def test_every_token_has_its_text_and_its_type(policies: dict[str, Any], tmp_path: Path) -> None:
    policy = policies["qwen3"]
    ours.write_model(policy, tmp_path / "m.gguf", "m")
    said = fields(tmp_path / "m.gguf")
    described = json.loads((policy.folder / "tokenizer.json").read_text())
    tokens, types = said["tokenizer.ggml.tokens"], said["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == policy.model.args.vocab_size
    assert all(tokens[number] == text for text, number in described["model"]["vocab"].items())
    special = {one["id"] for one in described["added_tokens"]}
    assert {i for i, kind in enumerate(types) if kind == gguf.TokenType.CONTROL} == special
    assert len(said["tokenizer.ggml.merges"]) == len(described["model"]["merges"])
    assert tokens[said["tokenizer.ggml.eos_token_id"]] == policy.tokenizer.eos_token
    assert said["tokenizer.ggml.add_bos_token"] is False


_QWEN = ours._WORDS + r"\p{N}" + ours._REST
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}


@pytest.mark.parametrize(
    ("cut", "name"),
    [
        ({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": _QWEN}}, _BYTES]}, "qwen2"),
        (
            {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": _QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|")}}, _BYTES]},
            "llama-bpe",
        ),
        (
            {"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": True}, _BYTES | {"use_regex": True}]},
            "smollm",
        ),
        (_BYTES | {"use_regex": True}, "gpt-2"),
        ({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "[a-z]"}}, _BYTES]}, "default"),
    ],
)  # fmt: skip
def test_the_rule_that_cuts_text_has_llama_cpp_s_name(cut: dict[str, Any], name: str) -> None:
    assert ours.cut_name({"pre_tokenizer": cut}) == name


def test_a_rule_that_llama_cpp_does_not_know_is_said(policies: dict[str, Any]) -> None:
    assert "may read text as other tokens" in ours.tokenizer_note(policies["qwen3"])


@pytest.mark.parametrize(
    "model", [{"type": "Unigram"}, {"type": "BPE", "vocab": {"a": 0}, "merges": []}], ids=["unigram", "no merges"]
)
def test_a_tokenizer_that_llama_cpp_does_not_read_is_refused_in_one_line(model: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model, "pre_tokenizer": _BYTES}))
    policy = SimpleNamespace(folder=tmp_path, config=config.ModelConfig(style="chat"))
    with pytest.raises(UsageError, match="only byte-level BPE"):
        ours.tokenizer_note(policy)


# -- the adapter


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_adapter_is_read_back(policies: dict[str, Any], tmp_path: Path, name: str) -> None:
    policy = policies[name]
    ours.write_adapter(policy, tmp_path / "lora.gguf", "m")
    said = fields(tmp_path / "lora.gguf")
    assert (said["general.type"], said["adapter.type"], said["general.architecture"]) == ("adapter", "lora", name)
    assert said["adapter.lora.alpha"] == policy.lora.scale * policy.lora.rank
    read, scale = ours.read_adapter(policy, tmp_path / "lora.gguf")
    assert scale == policy.lora.scale
    layers = adapted(policy.model)
    assert set(read) == set(layers)
    for path, (a, b) in read.items():
        assert np.array_equal(a, np.array(layers[path].lora_a.T))
        assert np.array_equal(b, np.array(layers[path].lora_b.T))


# -- azr export --format gguf


def test_an_export_has_model_adapter_modelfile_and_a_check(make_run: MakeRun, tmp_path: Path) -> None:
    said: list[str] = []
    run = make_run(std=0.05)
    [one] = export.export_checkpoint(export.find_source(run), ["gguf"], tmp_path / "out", say=said.append)
    names = {path.name for path in one.folder.iterdir()}
    assert names == {
        "nano-step-000003-f16.gguf", "nano-step-000003-lora.gguf", "Modelfile", "README.md", "manifest.json",
    }  # fmt: skip
    assert one.check.cosine is not None
    assert one.check.cosine > 0.99
    text = (one.folder / "Modelfile").read_text()
    assert text.startswith("FROM ./nano-step-000003-f16.gguf\n")
    assert 'TEMPLATE """{{ .Prompt }}"""' in text
    assert 'PARAMETER stop "<|im_end|>"' in text
    manifest = json.loads((one.folder / "manifest.json").read_text())
    assert manifest["dtype"] == "float16"
    assert set(manifest["files"]) == names - {"manifest.json"}
    card = (one.folder / "README.md").read_text()
    assert "library_name: gguf" in card
    assert re.search(r"ollama create nano-step-000003 -f Modelfile", card)
    assert any(line.startswith("note: llama.cpp has no rule") for line in said)


def test_an_effect_that_half_precision_rounds_away_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    source = export.find_source(make_run(std=1e-5))
    with pytest.raises(AzrError, match=r"gguf in float16 .*use --dtype f32"):
        export.export_checkpoint(source, ["gguf"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    [one] = export.export_checkpoint(source, ["gguf"], tmp_path / "out", "f32")
    assert (one.folder / "nano-step-000003-f32.gguf").is_file()
    assert one.check.good


def test_without_the_library_it_is_one_line(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(UsageError, match=r"pip install 'azr-mlx\[gguf\]'"):
        export.export_checkpoint(export.find_source(make_run()), ["gguf"], tmp_path / "out")


# -- llama.cpp itself, where it is installed (make hf-check)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("alone", [False, True])
def test_llama_cpp_gives_the_policy_s_logits(policies: dict[str, Any], tmp_path: Path, name: str, alone: bool) -> None:
    """The fused model, and the base with the adapter beside it."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    policy = policies[name]
    ours.write_model(policy, tmp_path / "model.gguf", "m", "f32", adapters=not alone)
    ours.write_adapter(policy, tmp_path / "lora.gguf", "m")
    tokens = list(policy.encode(prompts(1)[0].text))[:40]
    engine = llama_cpp.Llama(
        str(tmp_path / "model.gguf"), n_ctx=128, n_gpu_layers=0, n_threads=1, logits_all=True, verbose=False,
        lora_path=str(tmp_path / "lora.gguf") if alone else None,
    )  # fmt: skip
    engine.eval(tokens)
    theirs = np.array(engine.scores[: len(tokens)])
    hidden = policy.backbone.hidden(mx.array([tokens]))
    mine = np.array(policy.backbone.logits(hidden)[0].astype(mx.float32))
    with policy.reference():
        base = np.array(policy.backbone.logits(policy.backbone.hidden(mx.array([tokens])))[0].astype(mx.float32))
    effect = np.abs(mine - base).max()
    assert effect > 0.1
    assert np.abs(theirs - mine).max() < 0.02 * effect + 2e-3
