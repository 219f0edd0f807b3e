"""Models in: folders and repositories, quantized once, whoever wrote their configuration; bad ones are one line."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from azr_mlx import config
from azr_mlx.errors import AzrError
from azr_mlx.model import device, weights
from tests.model.conftest import build_model

import mlx.core as mx  # isort: skip
from mlx.utils import tree_flatten  # isort: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def copy(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "model"))


def load(folder: object, **options: object):
    return weights.open_model(config.ModelConfig(id=str(folder), group_size=32, **options), device.prepare())


def logits(network, tokens: tuple[int, ...] = (1, 2, 3)) -> mx.array:
    return network(mx.array([tokens])).astype(mx.float32)


def rewrite(folder: Path, **changes: object) -> None:
    """Change config.json; None takes a key out."""
    path = folder / "config.json"
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in settings.items() if value is not None}))


# -- quantized once


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache of its own, into which every model goes, in shards of 20 KB."""
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "SMALL", 0)
    monkeypatch.setattr(weights, "SHARD", 20_000)
    return tmp_path / "cache/quantized"


def test_a_full_precision_model_is_quantized_once(copy: Path, cached: Path, monkeypatch, capfd) -> None:
    first = load(copy)[0]
    (kept,) = cached.iterdir()
    assert "quantizing" in capfd.readouterr().err
    assert len(list(kept.glob("model-*-of-*.safetensors"))) > 1
    assert json.loads((kept / "config.json").read_text())["quantization"] == {
        "group_size": 32, "bits": 4, "mode": "affine"
    }  # fmt: skip
    monkeypatch.setattr(weights, "_keep_quantized", None)  # a second time it would be called, and fail
    assert mx.array_equal(logits(load(copy)[0]), logits(first))
    assert capfd.readouterr().err == ""


def test_the_cached_model_is_the_one_quantized_in_memory(copy: Path, cached: Path, monkeypatch) -> None:
    kept = load(copy)[0]
    monkeypatch.setattr(weights, "SMALL", 10**9)
    assert mx.array_equal(logits(load(copy)[0]), logits(kept))


def test_the_cached_folder_is_a_model_of_mlx_lm(copy: Path, cached: Path) -> None:
    from mlx_lm import load as open_model

    ours = load(copy)[0]
    (kept,) = cached.iterdir()
    theirs, tokenizer = open_model(str(kept))
    assert mx.abs(logits(theirs) - logits(ours)).max().item() < 1e-3
    assert tokenizer.has_chat_template


def test_other_weights_and_other_bits_have_a_place_of_their_own(copy: Path, cached: Path) -> None:
    load(copy)
    load(copy, bits=8)
    shutil.copyfile(copy / "model.safetensors", copy / "again")
    (copy / "again").replace(copy / "model.safetensors")
    load(copy)
    assert len(list(cached.iterdir())) == 3


def test_too_small_a_disk_is_one_line_and_leaves_nothing(copy: Path, cached: Path, monkeypatch) -> None:
    monkeypatch.setattr(weights, "free_bytes", lambda path: 1000)
    with pytest.raises(AzrError, match=r"quantizing .* needs 0\.0 GB, the disk of .* has 0\.0 GB free"):
        load(copy)
    assert not cached.exists()


def test_an_interrupted_quantization_leaves_nothing_that_looks_whole(copy: Path, cached: Path, monkeypatch) -> None:
    def interrupt(*words: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mx, "save_safetensors", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(copy)
    assert not list(cached.iterdir())


def test_a_small_model_is_not_cached(copy: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "cache"))
    load(copy)
    assert not (tmp_path / "cache").exists()


def test_an_impossible_quantization_is_one_line(copy: Path) -> None:
    with pytest.raises(AzrError, match="cannot be quantized with bits 8, group_size 32, mode mxfp4"):
        logits(load(copy, mode="mxfp4", bits=8)[0])


# -- what configurations leave unsaid


def test_the_base_of_rotations_is_found_where_transformers_5_puts_it(tmp_path: Path) -> None:
    """mlx_lm's Qwen 2 reads a flat rope_theta only and takes 1e6 when there is none; Qwen1.5-4B has 5e6."""
    folder = build_model(tmp_path, "qwen2", rope_theta=5e6)
    expected = logits(load(folder)[0])
    rewrite(folder, rope_theta=None, rope_parameters={"rope_theta": 5e6, "rope_type": "default"})
    assert mx.array_equal(logits(load(folder)[0]), expected)
    rewrite(folder, rope_parameters=None)  # so it does matter
    assert not mx.array_equal(logits(load(folder)[0]), expected)


@pytest.mark.parametrize("tied", [True, False])
def test_an_own_output_matrix_is_used_when_the_configuration_is_silent(tmp_path: Path, tied: bool) -> None:
    """transformers leaves tie_word_embeddings out when it is false; mlx_lm's Qwen 2 takes that for true."""
    folder = build_model(tmp_path, "qwen2", tied)
    expected = logits(load(folder)[0])
    rewrite(folder, tie_word_embeddings=None)
    assert mx.array_equal(logits(load(folder)[0]), expected)


def test_float16_scales_do_not_make_float16_activations(plain: Path, tmp_path: Path) -> None:
    from mlx_lm import convert

    convert(str(plain), str(tmp_path / "half"), quantize=True, q_group_size=32, q_bits=4, dtype="float16")
    stored = mx.load(str(tmp_path / "half/model.safetensors"))
    assert any(value.dtype == mx.float16 for value in stored.values())
    network = load(tmp_path / "half")[0]
    assert {value.dtype for _, value in tree_flatten(network.parameters())} == {mx.float32}


def test_packed_weights_stay_packed_on_a_gpu_with_scales_in_its_dtype(plain: Path, tmp_path: Path) -> None:
    from mlx_lm import convert

    convert(str(plain), str(tmp_path / "half"), quantize=True, q_group_size=32, q_bits=4, dtype="float16")
    gpu = device.Profile("metal", "as if", 1)
    network = weights.open_model(config.ModelConfig(id=str(tmp_path / "half")), gpu)[0]
    assert {value.dtype for _, value in tree_flatten(network.parameters())} == {mx.uint32, mx.bfloat16}


def test_qwen_3_5_keeps_its_decay_in_float32(tmp_path: Path) -> None:
    """Its gated delta net says so in `cast_predicate`; all else follows the device."""
    from mlx_lm.models import qwen3_5

    text = {
        "model_type": "qwen3_5_text", "hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 128,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-6, "vocab_size": 288,
        "tie_word_embeddings": True, "max_position_embeddings": 512, "full_attention_interval": 4,
        "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 32,
        "linear_value_head_dim": 32, "linear_conv_kernel_dim": 4,
        "rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.25, "type": "default"},
    }  # fmt: skip
    folder = build_model(tmp_path)  # for its tokenizer
    settings = {"model_type": "qwen3_5", "text_config": text, "eos_token_id": 258}
    network = qwen3_5.Model(qwen3_5.ModelArgs.from_dict(settings))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(network.parameters())))
    (folder / "config.json").write_text(json.dumps(settings))
    model = config.ModelConfig(id=str(folder), group_size=32)
    loaded = weights.open_model(model, device.Profile("metal", "as if", 1))[0]
    for name, value in tree_flatten(loaded.parameters()):
        if value.dtype != mx.uint32:
            assert value.dtype == (mx.float32 if name.endswith("A_log") else mx.bfloat16), name
    assert mx.isfinite(logits(loaded)).all().item()


# -- bad folders


def test_a_cut_file_is_one_line(copy: Path) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(weights.DamagedWeights, match=r"model.safetensors is damaged or cut off"):
        load(copy)


@pytest.mark.parametrize(
    "content", [b"", b"short", b"\xff" * 64, (10).to_bytes(8, "little") + b"not a json", b"PK" * 99]
)
def test_a_file_that_is_no_safetensors_is_one_line(copy: Path, content: bytes) -> None:
    (copy / "model.safetensors").write_bytes(content)
    with pytest.raises(weights.DamagedWeights, match="is damaged or cut off"):
        load(copy)


def test_a_pickle_is_not_read(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(weights.ModelNotFound, match=r"only pytorch_model.bin: just safetensors are read"):
        load(copy)


def test_a_download_that_lacks_a_file_is_one_line(copy: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(weights.ModelNotFound, match="lacks 1 of its 2 weight files, first model-00002-of-00002"):
        load(copy)


def test_an_index_older_than_the_files_beside_it_is_not_asked(copy: Path) -> None:
    """As where a model in two files was merged into one: all tensors are there, and mlx_lm loads it."""
    expected = logits(load(copy)[0])
    names = weights.tensors(copy / "model.safetensors")
    index = {"weight_map": {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(names)}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert mx.array_equal(logits(load(copy)[0]), expected)


@pytest.mark.parametrize("method", ["fp8", "bitsandbytes"])
def test_weights_that_another_tool_quantized_are_named_and_refused(copy: Path, method: str) -> None:
    """Their files hold tensors that mlx_lm's model has no place for; which ones says nothing to a person."""
    tensors = mx.load(str(copy / "model.safetensors"))
    tensors |= {f"{name}_scale_inv": mx.ones((1, 1)) for name in tensors if "proj" in name}
    mx.save_safetensors(str(copy / "model.safetensors"), tensors, metadata={"format": "pt"})
    rewrite(copy, quantization_config={"quant_method": method})
    with pytest.raises(AzrError, match=f"is quantized as {method}, which has no MLX counterpart: take the original"):
        load(copy)


def test_code_that_comes_with_a_model_is_not_run(copy: Path) -> None:
    rewrite(copy, model_file="evil.py")
    (copy / "evil.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(AzrError, match=r"is not a model that mlx_lm can build"):
        load(copy)
    assert not any(pattern.endswith(".py") for pattern in weights.PATTERNS)


def test_an_unknown_architecture_is_one_line(copy: Path) -> None:
    rewrite(copy, model_type="made_up")
    with pytest.raises(AzrError, match="Model type made_up not supported"):
        load(copy)


def test_a_configuration_that_is_no_json_is_one_line(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    with pytest.raises(weights.ModelNotFound, match="cannot be read as JSON"):
        load(copy)


def test_a_folder_has_no_revisions(copy: Path) -> None:
    with pytest.raises(weights.ModelNotFound, match=r"model.revision belongs to a Hugging Face repository"):
        load(copy, revision="main")


# -- repositories


@pytest.fixture
def hub(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache that holds me/tiny at two commits, and no network."""
    from huggingface_hub import constants, file_download

    folder = tmp_path / "hub/models--me--tiny"
    (folder / "refs").mkdir(parents=True)
    for commit, name in (("a" * 40, "main"), ("b" * 40, "v1")):
        shutil.copytree(plain, folder / "snapshots" / commit)
        (folder / "refs" / name).write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert file_download is not None
    return folder


def test_a_cached_repository_is_used_offline_at_the_revision_asked_for(hub: Path) -> None:
    assert weights.resolve(config.ModelConfig(id="me/tiny")) == hub / "snapshots" / ("a" * 40)
    assert weights.resolve(config.ModelConfig(id="me/tiny", revision="v1")) == hub / "snapshots" / ("b" * 40)
    assert weights.resolve(config.ModelConfig(id="me/tiny", revision="b" * 40)) == hub / "snapshots" / ("b" * 40)


@pytest.fixture(params=["nothing listens", 401, 404, 503])
def unanswered(hub: Path, request, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Not offline, but nothing listens at the hub's address, or what does refuses everything."""
    from huggingface_hub import constants

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(request.param)

        do_HEAD = do_GET

        def log_message(self, *words: object) -> None:
            pass

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        if request.param == "nothing listens":
            server.server_close()
            yield
            return
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()


def test_what_is_cached_loads_when_the_hub_does_not_answer_with_one_note(hub: Path, unanswered, capfd) -> None:
    assert weights.resolve(config.ModelConfig(id="me/tiny")) == hub / "snapshots" / ("a" * 40)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note: ")]
    assert line.startswith("note: me/tiny is taken from the cache, the hub does not answer (")
    assert weights.resolve(config.ModelConfig(id="me/tiny", revision="v1")) == hub / "snapshots" / ("b" * 40)


def test_what_is_not_cached_is_one_line_when_the_hub_does_not_answer(unanswered) -> None:
    with pytest.raises(weights.ModelNotFound, match=r"^(there is no repository )?me/other") as found:
        weights.resolve(config.ModelConfig(id="me/other"))
    assert "\n" not in str(found.value)


def test_offline_a_missing_repository_is_one_line(hub: Path) -> None:
    line = "me/other is neither a local folder nor in the Hugging Face cache, and HF_HUB_OFFLINE is set"
    with pytest.raises(weights.ModelNotFound, match=line):
        load("me/other")
    with pytest.raises(weights.ModelNotFound, match="me/tiny at revision v2 is neither"):
        load("me/tiny", revision="v2")


def test_a_download_that_does_not_fit_is_refused_before_it_starts(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import constants

    class File:
        file_size, will_download = 8 * 10**9, True

    def snapshot(*words: object, dry_run: bool = False, **more: object) -> list[File]:
        assert dry_run, "it went on to download"
        return [File()]

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(weights, "free_bytes", lambda path: 10**9)
    with pytest.raises(AzrError, match=r"downloading me/big needs 8\.0 GB, the disk of .* has 1\.0 GB free"):
        load("me/big")
