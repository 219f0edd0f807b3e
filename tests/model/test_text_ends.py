"""What tokenizers put before and behind a text, and what a prompt then is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from azr_mlx import config
from azr_mlx.model.policy import Policy

BOS, EOS = "<|im_start|>", "<|im_end|>"


def adding(folder: Path, source: Path, single: str, template: str = "", bos: str | None = BOS) -> Path:
    """The model with a tokenizer that wraps a text as `single` says, as in "$bos $A $eos"."""
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    shutil.copytree(source, folder, dirs_exist_ok=True)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    names = [(name, tokenizer.token_to_id(name)) for name in (BOS, EOS)]
    tokenizer.post_processor = TemplateProcessing(
        single=single.replace("$bos", BOS).replace("$eos", EOS), special_tokens=names
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    path = folder / "tokenizer_config.json"
    described = json.loads(path.read_text()) | {"bos_token": bos}
    path.write_text(json.dumps(described))
    if template:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def load(folder: Path, style: str = "compact") -> Policy:
    return Policy.load(
        config.ModelConfig(id=str(folder), style=style, group_size=32), config.LoraConfig(rank=4), config.OptimConfig(),
        config.SamplingConfig(), config.LossConfig(),
    )  # fmt: skip


@pytest.mark.parametrize("style", ["compact", "r1"])
@pytest.mark.parametrize(("single", "begins"), [("$bos $A $eos", True), ("$bos $A", True), ("$A $eos", False)])
def test_no_prompt_ends_in_the_end_token_and_each_begins_as_the_tokenizer_says(
    models: dict[str, Path], tmp_path: Path, single: str, begins: bool, style: str
) -> None:
    policy = load(adding(tmp_path, models["qwen3"], single), style)
    plain = load(models["qwen3"], style).encode("x = 1")
    bos = [policy.tokenizer.convert_tokens_to_ids(BOS)] if begins else []
    assert policy.encode("x = 1") == [*bos, *plain]


TEMPLATES = {
    "at once": BOS + "{{ messages[0].content }}",
    "after a line": "\n" + BOS + "{{ messages[0].content }}",
    "after words": "[gMASK]" + BOS + "{{ messages[0].content }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_that_writes_the_first_token_itself_does_not_get_a_second(
    models: dict[str, Path], tmp_path: Path, name: str
) -> None:
    policy = load(adding(tmp_path, models["qwen3"], "$bos $A", TEMPLATES[name]), "chat")
    bos = policy.tokenizer.convert_tokens_to_ids(BOS)
    assert policy.encode(policy.render_chat("x = 1")).count(bos) == 1
    # A text that only quotes the token somewhere gets one of its own.
    assert policy.encode(f"print({BOS!r})")[0] == bos


def test_a_template_decides_what_a_conversation_begins_with_as_in_mlx_lm(
    models: dict[str, Path], tmp_path: Path
) -> None:
    folder = adding(tmp_path, models["qwen3"], "$bos $A $eos", "User: {{ messages[0].content }}\n")
    policy = load(folder, "chat")
    conversation = [{"role": "user", "content": "x = 1"}]
    assert policy.encode(policy.render_chat("x = 1")) == list(policy.tokenizer.apply_chat_template(conversation))


def test_a_model_without_an_end_token_is_told_in_one_note(models: dict[str, Path], tmp_path: Path, capfd) -> None:
    shutil.copytree(models["qwen3"], tmp_path, dirs_exist_ok=True)
    for name, key in (("config.json", "eos_token_id"), ("tokenizer_config.json", "eos_token")):
        described = json.loads((tmp_path / name).read_text())
        described.pop(key)
        (tmp_path / name).write_text(json.dumps(described))
    capfd.readouterr()
    assert load(tmp_path).stop_tokens == frozenset()
    [line] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note: ")]
    assert "names no end token" in line
    assert '"eos_token_id"' in line
