"""Position embeddings of every form, as transformers 4 and as transformers 5 write them: the model that was meant."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from azr_mlx import config
from azr_mlx.errors import AzrError
from azr_mlx.model import rope, weights
from azr_mlx.model.policy import Policy
from azr_mlx.types import Kind, Prompt, Role
from tests.model.conftest import build_model

import mlx.core as mx  # isort: skip

THETA = 5e5
TOKENS = 300  # more than the 64 positions that the scaled forms were "trained" with
ORIGINAL = {"original_max_position_embeddings": 64}
FORMS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, **ORIGINAL},
    "yarn, original length unsaid": {"rope_type": "yarn", "factor": 4.0},
    "yarn, own bounds": {"rope_type": "yarn", "factor": 8.0, "beta_fast": 16, "beta_slow": 2, **ORIGINAL},
    "yarn, own attention": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.7, **ORIGINAL},
    "yarn, one mscale": {"rope_type": "yarn", "factor": 4.0, "mscale": 2.0, **ORIGINAL},
    "yarn, both mscales": {"rope_type": "yarn", "factor": 4.0, "mscale": 2.0, "mscale_all_dim": 0.5, **ORIGINAL},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **ORIGINAL},
    "llama3, original length unsaid": {
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0
    },
    "longrope": {
        "rope_type": "longrope", "short_factor": [1.0 + i / 8 for i in range(8)],
        "long_factor": [2.0 + i for i in range(8)], "original_max_position_embeddings": 512,
    },
}  # fmt: skip
ARCHITECTURES = ("llama", "qwen2", "qwen3")


def written(folder: Path, architecture: str, form: str, way: str) -> Path:
    """A model with one form of position embeddings, written the old way, the old way with `type`, or the new way."""
    build_model(folder, architecture)
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    del settings["rope_theta"]
    said = FORMS[form]
    if way == "new":
        settings["rope_parameters"] = said | {"rope_theta": THETA}
    else:
        name = "rope_type" if way == "old" else "type"
        scaling = {name if key == "rope_type" else key: value for key, value in said.items()}
        settings |= {"rope_theta": THETA, "rope_scaling": None if form == "default" else scaling}
    path.write_text(json.dumps(settings))
    return folder


def our_logits(folder: Path) -> mx.array:
    network, _ = weights.open_lazily(folder)
    return network(mx.array([tokens()])).astype(mx.float32)[0]


def tokens() -> list[int]:
    return [(7 * i * i + 3 * i) % 250 for i in range(TOKENS)]


@pytest.fixture
def transformers_logits() -> Callable[[Path], mx.array]:
    """What transformers computes of a folder, (T, V)."""
    torch = pytest.importorskip("torch", reason="torch is not installed: make hf-check installs it")
    from transformers import AutoModelForCausalLM

    def computed(folder: Path) -> mx.array:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            return mx.array(model(torch.tensor([tokens()])).logits[0].numpy())

    return computed


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_ways_of_writing_a_form_are_one_model(tmp_path: Path, architecture: str, form: str) -> None:
    ways = []
    for way in ("old", "older", "new"):
        (tmp_path / way).mkdir()
        ways.append(our_logits(written(tmp_path / way, architecture, form, way)))
    assert mx.array_equal(ways[0], ways[1])
    assert mx.array_equal(ways[0], ways[2])


@pytest.mark.parametrize("way", ["old", "new"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_logits_are_those_of_transformers(
    tmp_path: Path, architecture: str, form: str, way: str, transformers_logits
) -> None:
    theirs = transformers_logits(written(tmp_path, architecture, form, way))
    assert mx.abs(our_logits(tmp_path) - theirs).max().item() < 2e-3
    agree = (our_logits(tmp_path).argmax(-1) == theirs.argmax(-1)).mean().item()
    assert agree == 1.0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_where_nothing_is_said_the_base_is_that_of_transformers(
    tmp_path: Path, architecture: str, transformers_logits
) -> None:
    """mlx_lm's Qwen 2 would take a hundred times that, and its Qwen 3 would not load."""
    rewritten(build_model(tmp_path, architecture), rope_theta=None)
    assert weights.settled(tmp_path)["rope_theta"] == 10_000.0
    theirs = transformers_logits(tmp_path)
    assert mx.abs(our_logits(tmp_path) - theirs).max().item() < 2e-3


@pytest.mark.parametrize("form", [form for form in FORMS if form != "default"])
def test_the_form_matters(tmp_path: Path, form: str) -> None:
    """So that equal logits above say something: with the plain form the likeliest tokens differ. The dynamic form is
    the plain one up to max_position_embeddings, beyond which no row is sampled."""
    for name in ("plain", "scaled"):
        (tmp_path / name).mkdir()
    plain = our_logits(written(tmp_path / "plain", "llama", "default", "new"))
    scaled = our_logits(written(tmp_path / "scaled", "llama", form, "new"))
    same = (plain.argmax(-1) == scaled.argmax(-1)).mean().item()
    assert (same == 1.0) is (form == "dynamic")


@pytest.mark.parametrize("way", ["old", "new"])
@pytest.mark.parametrize("form", FORMS)
def test_what_is_written_again_is_the_same_model(tmp_path: Path, form: str, way: str) -> None:
    """The configuration of an export, read by us and by mlx_lm alone, but for the form whose long factors it takes."""
    from mlx_lm.utils import load_model

    expected = our_logits(written(tmp_path, "qwen2", form, way))
    (tmp_path / "config.json").write_text(json.dumps(weights.written_config(tmp_path)))
    assert mx.array_equal(our_logits(tmp_path), expected)
    if form != "longrope":
        alone, _ = load_model(tmp_path)
        assert mx.abs(alone(mx.array([tokens()])).astype(mx.float32)[0] - expected).max().item() < 1e-4


@pytest.mark.parametrize("form", FORMS)
def test_transformers_reads_what_is_written_again(tmp_path: Path, form: str, transformers_logits) -> None:
    expected = our_logits(written(tmp_path, "qwen2", form, "new"))
    (tmp_path / "config.json").write_text(json.dumps(weights.written_config(tmp_path)))
    assert mx.abs(expected - transformers_logits(tmp_path)).max().item() < 2e-3


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"rope_type": "spiral", "factor": 2.0}, "of the form 'spiral' are not known"),
        ({"type": "ntk"}, "of the form 'ntk' are not known"),
        ({"rope_type": "yarn", "factor": 2.0, "truncate": False}, "truncate: false"),
        ({"rope_type": "linear"}, "linear position embeddings need factor"),
        ({"rope_type": "llama3", "factor": 8.0}, "need low_freq_factor and high_freq_factor"),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "cannot rotate a part of a head"),
        ("linear", "not a mapping"),
        (
            {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}},
            "types of layers have different position embeddings",
        ),
    ],
)
@pytest.mark.parametrize("name", ["rope_scaling", "rope_parameters"])
def test_a_form_that_cannot_be_computed_is_refused_by_name(tmp_path: Path, name: str, said: Any, words: str) -> None:
    rewritten(build_model(tmp_path, "llama"), **{name: said})
    with pytest.raises(rope.UnknownRope, match=words):
        weights.open_lazily(tmp_path)


def test_a_model_whose_mlx_form_has_no_scaling_is_refused() -> None:
    with pytest.raises(rope.UnknownRope, match="mlx_lm's model has no yarn position embeddings"):
        rope.for_reading({"rope_scaling": FORMS["yarn"]}, {"rope_theta"})


def test_a_row_longer_than_the_embeddings_are_exact_for_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "llama", "dynamic", "new")
    rewritten(tmp_path, max_position_embeddings=32)
    s = config.with_values(config.Config(), {"model.id": str(tmp_path), "model.group_size": 32, "lora.rank": 4})
    policy = Policy.load(s.model, s.lora, s.optim, s.sampling, s.loss)
    asked = [Prompt(Role.SOLVE, Kind.DEDUCTION, "0123456789")]
    policy.sample_all(asked, 1, seed=(0,), max_tokens=22)
    with pytest.raises(AzrError, match=r"may take 33 tokens, but the position embeddings of .* change beyond 32"):
        policy.sample_all(asked, 1, seed=(0,), max_tokens=23)


def rewritten(folder: Path, **changes: object) -> None:
    """Change config.json; None takes a key out."""
    path = folder / "config.json"
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in settings.items() if value is not None}))
