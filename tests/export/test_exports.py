"""What an export is: whole or not there, checked against the policy, described, and one line when it cannot be."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import yaml
from click.testing import CliRunner

from azr_mlx import export as exporter
from azr_mlx.cli import azr
from azr_mlx.errors import AzrError, UsageError
from azr_mlx.model import device, weights
from tests.export.conftest import MakeRun

import mlx.core as mx  # isort: skip
from mlx.utils import tree_flatten, tree_map  # isort: skip

FORMATS = ("mlx", "peft", "hf", "base")  # the fifth, gguf, has a file of its own


@pytest.fixture(scope="module")
def run(make_run: MakeRun) -> Path:
    return make_run("qwen3", 1e-2)


@pytest.fixture(scope="module")
def out(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of all formats, as the command line makes it."""
    target = tmp_path_factory.mktemp("out") / "export"
    said = CliRunner().invoke(azr, ["export", str(run), "--format", "mlx,peft,hf,base", "--out", str(target)])
    assert said.exit_code == 0, said.output
    for name in FORMATS:
        assert f"\n{name} " in said.output
    assert said.output.count("effect kept 1.0000") == 3
    return target


def refusal(*words: object, code: int = 2) -> str:
    """The one line of an `azr export` that must fail."""
    result = CliRunner().invoke(azr, ["export", *map(str, words)])
    assert result.exit_code == code, result.output
    (line,) = result.stderr.splitlines()
    return line


def copied(run: Path, where: Path) -> Path:
    return Path(shutil.copytree(run, where / "nano"))


# -- what is written


@pytest.mark.parametrize("name", FORMATS)
def test_the_manifest_holds_the_hash_of_every_file_and_the_check(name: str, out: Path) -> None:
    manifest = json.loads((out / name / "manifest.json").read_text())
    files = {path.name for path in (out / name).iterdir()}
    assert set(manifest["files"]) == files - {"manifest.json"}
    for file, said in manifest["files"].items():
        data = (out / name / file).read_bytes()
        assert said == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert manifest["check"]["kl"] < 1e-6
    assert manifest["check"]["largest"] < 1e-3
    assert manifest["check"]["tokens"] > 100
    assert manifest["step"] == 3


@pytest.mark.parametrize("name", FORMATS)
def test_the_card_has_a_head_for_the_hub_and_says_how_to_load(name: str, out: Path) -> None:
    text = (out / name / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["library_name"] == {"mlx": "mlx", "peft": "peft"}.get(name, "transformers")
    loads = {"mlx": "mlx_lm.generate --model", "peft": "PeftModel.from_pretrained"}
    assert loads.get(name, "AutoModelForCausalLM.from_pretrained") in text
    assert ("It needs transformers 4.57 or newer." in text) is (name != "mlx")
    assert "licence: " in text
    assert "KL per token" in text


def test_a_fused_configuration_is_complete_and_no_longer_quantized(out: Path, bases: dict[str, Path]) -> None:
    before = json.loads((bases["qwen3"] / "config.json").read_text())
    after = json.loads((out / "hf/config.json").read_text())
    assert set(before) - set(after) == {"quantization", "quantization_config"}
    kept = set(before) & set(after) - {"torch_dtype", "dtype"}
    assert {name: before[name] for name in kept} == {name: after[name] for name in kept}
    assert after["torch_dtype"] == after["dtype"] == "float32"
    assert (out / "hf/generation_config.json").is_file()
    assert (out / "hf/tokenizer.json").is_file()


def test_weights_say_that_they_are_for_torch(out: Path) -> None:
    for path in (out / "hf/model.safetensors", out / "peft/adapter_model.safetensors"):
        assert mx.load(str(path), return_metadata=True)[1]["format"] == "pt"


def test_peft_holds_the_transposed_matrices_and_alpha(out: Path) -> None:
    """W + (alpha / r) B A of PEFT is W + scale (A B)^T of MLX, with alpha = scale * rank."""
    mlx, peft = (mx.load(str(out / name)) for name in ("mlx/adapters.safetensors", "peft/adapter_model.safetensors"))
    assert len(mlx) == len(peft)
    for name, value in mlx.items():
        path, _, leaf = name.rpartition(".")
        other = peft[f"base_model.model.{path}.{'lora_A' if leaf == 'lora_a' else 'lora_B'}.weight"]
        assert mx.array_equal(value.T, other)
    described = json.loads((out / "peft/adapter_config.json").read_text())
    ours = json.loads((out / "mlx/adapter_config.json").read_text())["lora_parameters"]
    assert described["r"] == ours["rank"]
    assert described["lora_alpha"] == ours["scale"] * ours["rank"]


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_a_streamed_file_is_what_fusing_in_memory_gives(dtype: str, make_run: MakeRun, tmp_path: Path) -> None:
    """W + scale (A B)^T, rounded once; in several files, with an index that names the file of each tensor."""
    policy = exporter.running_policy(exporter.find_source(make_run("untied", 1e-2)))
    exporter.write_fused(policy, tmp_path, dtype, shard=50_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    read = {name: mx.load(str(tmp_path / file))[name] for name, file in index["weight_map"].items()}
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in read.values())
    wanted = getattr(mx, exporter.DTYPES[dtype])
    expected = {}
    layers = exporter.adapted(policy.model)
    for name, value in tree_flatten(policy.model.parameters()):
        path, _, leaf = name.rpartition(".")
        owner = path.removesuffix(".linear")
        if leaf not in ("lora_a", "lora_b"):
            update = layers[owner] if path.endswith(".linear") and leaf == "weight" else None
            added = update.scale * (update.lora_a @ update.lora_b).T if update is not None else 0.0
            expected[f"{owner}.{leaf}"] = (value + added).astype(wanted)
    assert set(read) == set(expected)
    for name, value in read.items():
        assert value.dtype == wanted
        assert mx.allclose(value, expected[name], rtol=1e-2 if dtype == "bf16" else 1e-3, atol=1e-6), name


def test_packed_weights_are_expanded_as_they_are_computed_with(bases: dict[str, Path]) -> None:
    """On a GPU the policy's weights stay packed; the export of those is that of the dense ones, number by number."""
    packed, _ = weights.open_lazily(bases["qwen3"])
    from mlx_lm.utils import dequantize_model

    dense = dequantize_model(weights.open_lazily(bases["qwen3"])[0])
    expected = dict(tree_flatten(dense.parameters()))
    seen = set()
    for tensor in exporter.fused_tensors(SimpleNamespace(model=packed)):
        value = tensor.rows(0, tensor.shape[0])
        assert value.shape == tensor.shape
        assert mx.allclose(value, expected[tensor.name], rtol=0, atol=1e-6)
        seen.add(tensor.name)
    assert seen == set(expected)


def test_writing_needs_little_memory_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 MB of matrix are written with pieces of 1 MB in memory."""
    monkeypatch.setattr("azr_mlx.export.fused.PIECE", 10**6)
    matrix = mx.zeros((10_000, 1_000))
    mx.eval(matrix)
    device.clear_cache()
    before = device.memory().active
    device.reset_peak()
    tensor = exporter.Tensor("w", matrix.shape, lambda i, j: matrix[i:j] + 1.0)
    exporter.write_safetensors(tmp_path / "model.safetensors", [tensor], "f16")
    assert device.memory().peak - before < 8e6
    assert mx.load(str(tmp_path / "model.safetensors"))["w"].shape == (10_000, 1_000)


def test_an_adapter_folder_without_a_run_is_exported_too(run: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name in ("adapters.safetensors", "adapter_config.json"):
        shutil.copyfile(run / "step-000003" / name, adapter / name)
    (written,) = exporter.export_checkpoint(exporter.find_source(adapter), ("peft",), tmp_path / "out")
    assert written.check.good


def test_a_tokenizer_for_tags_as_text_has_no_token_for_them(bases: dict[str, Path], tmp_path: Path) -> None:
    """In the style r1 the policy reads <think> letter by letter; what is exported does too, all else unchanged."""
    from transformers import AutoTokenizer

    policy = SimpleNamespace(folder=bases["plain"], config=SimpleNamespace(style="r1"))
    exporter.write_tokenizer(policy, tmp_path)
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (bases["plain"], tmp_path))
    assert len(before.encode("<think>")) == 1
    assert len(after.encode("<think>")) == len("<think>")
    text = "<|im_start|>def f(a): return a<|im_end|>"
    assert before.encode(text) == after.encode(text)


def test_a_tokenizer_in_the_words_of_transformers_5_is_exported_in_words_that_4_knows_too(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    """transformers 4.57 knows no class TokenizersBackend and takes extra_special_tokens for a mapping."""
    from transformers import AutoTokenizer

    model = tmp_path / "model"
    shutil.copytree(bases["plain"], model)
    told = AutoTokenizer.from_pretrained(model)
    told.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|more|>"]})
    told.save_pretrained(model)
    before = json.loads((model / "tokenizer_config.json").read_text())
    assert (before["tokenizer_class"], type(before["extra_special_tokens"])) == ("TokenizersBackend", list)

    (tmp_path / "out").mkdir()
    exporter.write_tokenizer(SimpleNamespace(folder=model, config=SimpleNamespace(style="chat")), tmp_path / "out")
    after = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert after["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert after["additional_special_tokens"] == before["extra_special_tokens"]
    assert not {"backend", "extra_special_tokens", "is_local"} & after.keys()
    again = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "<|im_start|>def f(a): return a<|more|><|im_end|>"
    assert again.encode(text) == told.encode(text)
    assert again.all_special_tokens == told.all_special_tokens


# -- the check


def test_a_format_that_loses_the_effect_is_refused_and_leaves_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    """An update of 1e-5 vanishes in bfloat16, whose numbers are 1/256 apart; the adapters keep it."""
    run = make_run("qwen3", 1e-5)
    line = refusal(run, "--dtype", "bf16", "--out", tmp_path / "out", code=1)
    assert "hf in bfloat16 keeps" in line
    assert "of the adapter's effect (cosine 0.99 is needed" in line
    assert "--dtype f32, or --format mlx,peft (mlx keeps 1.000, peft keeps 1.000)" in line
    assert not list(tmp_path.iterdir())


def test_the_numbers_of_the_check_by_hand() -> None:
    """One position, two tokens. Logits: base (0, 0), policy (1, 0), written (0, 1).

    Changes (1, 0) and (0, 1) are orthogonal: cosine 0. p = (e, 1) / (e + 1) and q swapped, so
    KL = p0 (1) + p1 (-1) = (e - 1) / (e + 1) = tanh(1/2).
    """

    def same(hidden: mx.array) -> mx.array:
        return hidden

    base, running, other = ([mx.array([pair])] for pair in ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0]))
    found = exporter.check_states(base, running, other, same, same)
    assert found.cosine == 0
    assert found.kl == pytest.approx(math.tanh(0.5))
    assert found.largest == 1
    assert found.agree == 0
    assert found.effect == pytest.approx(math.sqrt(0.5))
    assert not found.good
    assert exporter.check_states(base, running, running, same, same).good


def test_a_small_divergence_is_measured_below_the_rounding_of_its_terms() -> None:
    """p = (1/2, 1/2), q off by d = 1e-4 in the logit: KL = d^2 / 8 = 1.25e-9, a hundred times below float32's 1e-7."""
    found = exporter.check_states(
        [mx.zeros((1, 2))], [mx.zeros((1, 2))], [mx.array([[1e-4, 0.0]])], lambda h: h, lambda h: h
    )
    assert found.kl == pytest.approx(1.25e-9, rel=0.05)


def test_the_check_sees_a_file_that_is_another_model(run: Path, out: Path, tmp_path: Path) -> None:
    source = exporter.find_source(run)
    policy = exporter.running_policy(source)
    folder = Path(shutil.copytree(out / "hf", tmp_path / "hf"))
    tensors = mx.load(str(folder / "model.safetensors"))
    tensors["model.norm.weight"] = -tensors["model.norm.weight"]
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    token_rows = exporter.check_rows(policy, source)
    assert exporter.check_folders(policy, token_rows, {"hf": out / "hf"})["hf"].good
    assert not exporter.check_folders(policy, token_rows, {"hf": folder})["hf"].good


def test_the_check_says_which_implementation_it_compared_with(out: Path) -> None:
    """Ours alone may read a configuration wrongly twice: then the check says so, in the manifest and on the card."""
    expected = "in transformers" if importlib.util.find_spec("torch") else "own implementation only: torch is not"
    for name in ("mlx", "peft", "hf", "base"):
        said = json.loads((out / name / "manifest.json").read_text())["check"]["implementation"]
        assert (expected if name in ("hf", "base") else "own implementation only") in said
        assert said in (out / name / "README.md").read_text()


def test_a_model_that_transformers_reads_otherwise_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was with the scaling of positions that got lost on the way in: right for us, another model elsewhere."""
    pytest.importorskip("torch", reason="torch is not installed: make hf-check installs it")
    written = weights.written_config

    def otherwise(folder: Path) -> dict[str, object]:
        return written(folder) | {"rope_theta": 123.0}

    monkeypatch.setattr(weights, "written_config", otherwise)
    monkeypatch.setattr(weights, "settled", lambda folder: {"rope_theta": 10_000.0})
    with pytest.raises(AzrError, match="hf is another model in transformers than here"):
        exporter.export_checkpoint(exporter.find_source(run), ("hf",), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_check_leaves_the_policy_as_it_was(run: Path, out: Path) -> None:
    source = exporter.find_source(run)
    policy = exporter.running_policy(source)
    before = tree_map(mx.array, policy.model.parameters())
    exporter.check_folders(policy, exporter.check_rows(policy, source), {name: out / name for name in FORMATS})
    after = dict(tree_flatten(policy.model.parameters()))
    assert all(mx.array_equal(value, after[name]) for name, value in tree_flatten(before))
    assert {layer.scale for layer in policy._adapted()} == {policy.lora.scale}


def test_a_policy_that_computes_in_bfloat16_is_compared_in_float32_and_as_it_runs(make_run: MakeRun, tmp_path) -> None:
    """As on a GPU: rounding of a bfloat16 forward pass is not a fault of the file, and is reported apart."""
    run = make_run("untied", 1e-2)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("  dtype: auto", "  dtype: bfloat16"))
    assert "dtype: bfloat16" in (run / "config.yaml").read_text()
    (written,) = exporter.export_checkpoint(exporter.find_source(run), ("hf",), tmp_path / "out")
    assert written.check.cosine == pytest.approx(1.0, abs=1e-4)
    assert written.check.kl < 1e-6
    assert written.check.kl_as_run is not None
    assert written.check.kl_as_run > written.check.kl


# -- bad input: one line each, and nothing half-written


def test_an_existing_target_is_refused(run: Path, tmp_path: Path) -> None:
    assert "exists: name another folder with --out, or remove it" in refusal(run, "--out", tmp_path)


def test_a_run_without_checkpoints_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "nano").mkdir()
    shutil.copyfile(run / "config.yaml", tmp_path / "nano/config.yaml")
    assert "has no checkpoint yet: train it first" in refusal(tmp_path / "nano", "--out", tmp_path / "out")


def test_a_name_that_is_nothing_is_refused(tmp_path: Path) -> None:
    assert "there is no run or checkpoint nothing-of-that-name" in refusal("nothing-of-that-name")
    assert "is neither a run nor a checkpoint" in refusal(tmp_path)


def test_an_unknown_format_is_refused(run: Path, tmp_path: Path) -> None:
    line = refusal(run, "--format", "mlx,onnx", "--out", tmp_path / "out")
    assert "--format onnx: the formats are mlx, peft, hf, base, gguf" in line


def test_a_checkpoint_of_another_base_is_refused(run: Path, make_run: MakeRun, tmp_path: Path) -> None:
    """By its name where it says so, by its shapes where the names are alike."""
    mixed = copied(run, tmp_path)
    shutil.rmtree(mixed / "step-000003")
    other = shutil.copytree(make_run("untied", 1e-2) / "step-000003", mixed / "step-000003")
    assert "but its run's config.yaml says" in refusal(mixed, "--out", tmp_path / "out", code=1)
    described = json.loads((Path(other) / "adapter_config.json").read_text())
    described["model"] = json.loads((run / "step-000003/adapter_config.json").read_text())["model"]
    (Path(other) / "adapter_config.json").write_text(json.dumps(described))
    state = json.loads((Path(other) / "state.json").read_text())
    state["files"].pop("adapter_config.json")
    (Path(other) / "state.json").write_text(json.dumps(state))
    assert "belongs to another base model than" in refusal(mixed, "--out", tmp_path / "out", code=1)
    assert not (tmp_path / "out").exists()


def test_a_damaged_adapter_is_refused(run: Path, tmp_path: Path) -> None:
    broken = copied(run, tmp_path)
    path = broken / "step-000003/adapters.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "adapters.safetensors is damaged or cut off" in refusal(broken, "--out", tmp_path / "out", code=1)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # one bit: the header cannot tell, the checkpoint's hash can
    assert "adapters.safetensors is damaged" in refusal(broken, "--out", tmp_path / "out", code=1)


def test_too_small_a_disk_is_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "free_bytes", lambda path: 1_000_000)
    line = refusal(run, "--out", tmp_path / "out", code=1)
    assert (
        "has 0.00 GB free: name a folder on another disk with --out, take --dtype f16, or write adapters only" in line
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("[write] Unable to write")])
def test_a_disk_that_fills_while_it_is_written_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*words: object) -> None:
        raise error

    monkeypatch.setattr("azr_mlx.export.fused.write_safetensors", fail)
    assert "nothing was left behind" in refusal(run, "--out", tmp_path / "out", code=1)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_export_left_is_cleared_away(run: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.new/hf").mkdir(parents=True)
    exporter.export_checkpoint(exporter.find_source(run), ("mlx",), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_base_model_that_is_not_there_is_one_line(run: Path, tmp_path: Path) -> None:
    lost = copied(run, tmp_path)
    for path in (lost / "config.yaml", lost / "step-000003/adapter_config.json"):
        text = path.read_text()
        name = json.loads((run / "step-000003/adapter_config.json").read_text())["model"]
        path.write_text(text.replace(name, "/nowhere/model"))
    state = json.loads((lost / "step-000003/state.json").read_text())
    state["files"].pop("adapter_config.json")
    (lost / "step-000003/state.json").write_text(json.dumps(state))
    assert "no model folder at /nowhere/model" in refusal(lost, "--out", tmp_path / "out", code=1)


# -- the hub


class Hub:
    """Stands for HfApi: notes what it was asked to do."""

    asked: ClassVar[list[tuple[str, dict[str, object]]]] = []

    def create_repo(self, name: str, **words: object) -> None:
        self.asked.append((name, words))

    def upload_folder(self, **words: object) -> None:
        self.asked.append((str(words["repo_id"]), words))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    import huggingface_hub

    monkeypatch.setattr(Hub, "asked", [])
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a token")
    return Hub()


def test_nothing_is_uploaded_unless_asked_for(run: Path, tmp_path: Path, hub: Hub) -> None:
    words = [str(run), "--format", "mlx", "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(azr, ["export", *words]).exit_code == 0
    assert hub.asked == []


def test_a_dry_run_writes_and_uploads_nothing_and_says_what_it_would(run: Path, tmp_path: Path, hub: Hub) -> None:
    said = CliRunner().invoke(azr, ["export", str(run), "--out", str(tmp_path / "out"), "--push", "me/m", "--dry-run"])
    assert said.exit_code == 0
    assert "would go to private me/m-peft" in said.output
    assert said.output.endswith("nothing was written\n")
    assert hub.asked == []
    assert not list(tmp_path.iterdir())


def test_an_upload_is_private_and_goes_to_a_repository_of_its_format(run: Path, tmp_path: Path, hub: Hub) -> None:
    words = [str(run), "--format", "mlx,peft", "--out", str(tmp_path / "out"), "--push", "me/m"]
    assert CliRunner().invoke(azr, ["export", *words]).exit_code == 0
    assert [name for name, _ in hub.asked] == ["me/m-mlx", "me/m-mlx", "me/m-peft", "me/m-peft"]
    assert hub.asked[0][1]["private"] is True
    assert hub.asked[1][1]["folder_path"] == tmp_path / "out/mlx"


def test_an_upload_that_fails_keeps_the_export_and_says_how_to_go_on(
    run: Path, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Hub, **words: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(Hub, "upload_folder", fail)
    line = refusal(run, "--format", "mlx", "--out", tmp_path / "out", "--push", "me/m", code=1)
    assert "but not uploaded to me/m: no route to host; try again with hf upload me/m" in line
    assert (tmp_path / "out/mlx/adapters.safetensors").is_file()


@pytest.mark.parametrize(("offline", "words"), [(True, "HF_HUB_OFFLINE is set"), (False, "hf auth login")])
def test_an_upload_that_cannot_be_is_refused_before_the_work(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool, words: str
) -> None:
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert words in refusal(run, "--out", tmp_path / "out", "--push", "me/m")
    assert not list(tmp_path.iterdir())


def test_a_repository_needs_an_owner() -> None:
    with pytest.raises(UsageError, match="write it as OWNER/NAME"):
        exporter.repositories("nano", ("mlx",))


def test_the_errors_are_of_the_kind_that_the_command_line_shows() -> None:
    assert issubclass(weights.DamagedWeights, AzrError)
    assert issubclass(weights.ModelNotFound, AzrError)


# -- where a quantized model comes from


@pytest.mark.parametrize(
    ("name", "card", "expected"),
    [
        ("mlx-community/Qwen3-4B-4bit", None, "Qwen/Qwen3-4B"),
        ("mlx-community/Qwen2.5-Coder-3B-Instruct-4bit", None, "Qwen/Qwen2.5-Coder-3B-Instruct"),
        ("mlx-community/Qwen3.5-4B-MLX-4bit", None, "Qwen/Qwen3.5-4B"),
        ("someone/thing-4bit", None, "someone/thing-4bit"),
        ("someone/thing-4bit", "---\nbase_model: Qwen/Qwen3-8B\n---\n", "Qwen/Qwen3-8B"),
        ("someone/thing-4bit", "---\nbase_model: [Qwen/Qwen3-8B]\n---\n", "Qwen/Qwen3-8B"),
        ("someone/thing-4bit", "---\n: [\n---\n", "someone/thing-4bit"),
    ],
)
def test_the_base_of_a_quantized_model_is_found(name: str, card: str | None, expected: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"quantization": {"bits": 4}}))
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert exporter.base_model(SimpleNamespace(folder=tmp_path, config=SimpleNamespace(id=name))) == expected
