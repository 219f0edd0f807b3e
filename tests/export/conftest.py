"""Runs with adapters of a known size, on the embedded model and on a small Qwen 2.5 shape, ready to be exported."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from azr_mlx import config
from azr_mlx.model import device
from azr_mlx.run import checkpoint
from azr_mlx.run.folder import RunFolder

device.prepare()

import mlx.core as mx  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

from azr_mlx.model.policy import Policy  # noqa: E402
from azr_mlx.types import Kind, Prompt, Role  # noqa: E402
from tests.model.conftest import build_model  # noqa: E402

MakeRun = Callable[..., Path]

QUESTIONS = (
    "deduction\n```python\ndef f(a):\n    return a + 1\n```\n```input\n4\n```\n```output\n",
    "deduction\n```python\ndef f(a, b):\n    return a * b\n```\n```input\n3, 5\n```\n```output\n",
    "deduction\n```python\ndef f(s):\n    return s[::-1]\n```\n```input\n'abc'\n```\n```output\n",
    "abduction\n```python\ndef f(a):\n    return sorted(a)\n```\n```output\n[1, 2]\n```\n```input\n",
    "propose deduction\n```python\ndef f(a):\n    return a\n```\n```input\n7\n```\n```output\n7\n```\nnew\n```python\n",
)


def prompts(count: int) -> list[Prompt]:
    """Prompts that differ, in the words that the embedded model knows."""
    return [
        Prompt(Role.SOLVE, Kind.DEDUCTION, QUESTIONS[i % len(QUESTIONS)] + "[" * (i // len(QUESTIONS)))
        for i in range(count)
    ]


def qwen_vocabulary() -> Path | None:
    """Qwen's own vocabulary, where the package that carries it is installed: make hf-check does so."""
    place = importlib.util.find_spec("dashscope")
    path = Path(place.origin).parent / "resources/qwen.tiktoken" if place and place.origin else None
    return path if path and path.is_file() and importlib.util.find_spec("tiktoken") else None


def qwen_tokenizer(folder: Path, path: Path) -> None:
    """Write the tokenizer of a vocabulary of Qwen into a model folder."""
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    converter = TikTokenConverter(vocab_file=str(path), pattern=pattern, extra_special_tokens=special)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=converter.converted(), eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    fast.save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text()) | {"eos_token_id": fast.eos_token_id}
    (folder / "config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="session")
def bases(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """4-bit models: `qwen3`, the embedded one where it is there, and `qwen2`, a Qwen 2.5 of two thin layers."""
    from mlx_lm import convert

    made = tmp_path_factory.mktemp("bases")

    def quantized(name: str, plain: Path) -> Path:
        convert(str(plain), str(made / name), quantize=True, q_group_size=32, q_bits=4)
        return made / name

    def folder(name: str) -> Path:
        (made / name).mkdir()
        return made / name

    nano = root / "checkpoints/qwen3-nano"
    if not (nano / "model.safetensors").is_file():
        nano = quantized("nano", build_model(folder("nano-plain")))
    vocabulary = qwen_vocabulary()
    plain = build_model(
        folder("qwen2-plain"), "qwen2", vocab_size=151_936, num_hidden_layers=2, hidden_size=128, head_dim=32,
        intermediate_size=256, rope_theta=1e6,
    )  # fmt: skip
    if vocabulary:
        qwen_tokenizer(plain, vocabulary)
    return {
        "qwen3": nano,
        "qwen2": quantized("qwen2", plain),
        "untied": quantized("untied", build_model(folder("untied-plain"), "qwen2", tied=False, rope_theta=5e6)),
        "plain": build_model(folder("plain")),
    }


@pytest.fixture(scope="session")
def make_run(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """A run folder with one checkpoint whose lora_b are normal with standard deviation `std`."""

    def make(base: str = "qwen3", std: float = 1e-2, **lora: object) -> Path:
        run = tmp_path_factory.mktemp("runs") / "nano"
        run.mkdir()
        settings = config.with_values(
            config.Config(),
            {
                "model.id": str(bases[base]), "model.style": "compact", "model.group_size": 32, "lora.rank": 8,
                **{f"lora.{name}": value for name, value in lora.items()},
            },
        )  # fmt: skip
        s = settings
        policy = Policy.load(s.model, s.lora, s.optim, s.sampling, s.loss, seed=1)
        drawn = [
            (name, std * mx.random.normal(value.shape, key=mx.random.key(i)))
            for i, (name, value) in enumerate(tree_flatten(policy.model.trainable_parameters()))
            if name.endswith("lora_b")
        ]
        policy.model.load_weights(drawn, strict=False)
        (run / "config.yaml").write_text(config.dump(settings))
        checkpoint.save(RunFolder(run), 3, policy, [])
        return run

    return make
