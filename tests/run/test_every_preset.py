"""Every preset, two steps of it, on a thin random model of exactly its family with the real vocabulary.

Lengths and counts are cut, since a model that knows nothing writes to every limit; all else is the preset's own: its
prompts, kinds, adapters, loss, schedule and evaluation, from the first screen to the table by bands.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from azr_mlx import config
from azr_mlx.model.weights import CACHE_VARIABLE
from azr_mlx.run import session
from azr_mlx.types import Kind
from tests.export.conftest import qwen_tokenizer, qwen_vocabulary
from tests.export.test_real_shapes import SHAPES
from tests.model.conftest import build_model

pytestmark = pytest.mark.slow

TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CUT = (
    "steps=2", "minutes=0", "batch.proposals=2", "batch.attempts=2", "batch.solves=1", "batch.solve_group=2",
    "buffer.seed_size=2", "buffer.seed_rounds=1", "sampling.propose_tokens=24", "sampling.solve_tokens=16",
    "sampling.max_rows=8", "evaluation.every=1", "evaluation.minutes=0", "evaluation.probe_tasks=4",
    "evaluation.samples=1", "stop.malformed=0", "stop.worse=false",
)  # fmt: skip


def family(preset: str) -> dict[str, Any] | None:
    """What config.json of the preset's model says, but for its sizes; None for the embedded one."""
    name = config.load(preset).model.id.rpartition("/")[2].lower()
    known = [said for key, said in SHAPES.items() if name.startswith(key)]
    return None if name == "qwen3-nano" else max(known, key=len)


def thin(folder: Path, said: dict[str, Any]) -> Path:
    """Two blocks of that family: its kind, its ties, how many queries share a key, its real vocabulary."""
    vocabulary = qwen_vocabulary()
    if vocabulary is None:
        pytest.skip("Qwen's vocabulary is not installed: make hf-check installs it")
    folder.mkdir()
    group = said["num_attention_heads"] // said["num_key_value_heads"]
    heads = group if group > 1 else 2
    build_model(
        folder, said["model_type"], said["tie_word_embeddings"], hidden_size=64 * heads, intermediate_size=128 * heads,
        num_hidden_layers=2, num_attention_heads=heads, num_key_value_heads=heads // group, head_dim=64,
        vocab_size=said["vocab_size"], rope_theta=said["rope_theta"],
        max_position_embeddings=said["max_position_embeddings"],
    )  # fmt: skip
    qwen_tokenizer(folder, vocabulary)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.mark.parametrize("preset", config.presets())
def test_a_preset_goes_from_its_first_screen_to_its_table(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    said = family(preset)
    model = [] if said is None else [f"model.id={thin(tmp_path / 'model', said)}"]
    settings = config.load(preset, [*CUT, *model])
    assert session.train(settings, run_dir=tmp_path / "run", keep_awake=False) == 0
    screen = capsys.readouterr().out
    assert screen.startswith(f"run       {preset} on ")
    for part in ("first number", "probe before", "seeds: ", "probe after 1 steps", "held-out tasks", "95 % interval"):
        assert part in screen
    assert ("by band: before -> after" in screen) is (said is not None)
    result = json.loads((tmp_path / "run" / "probe.json").read_text())
    assert {*result["before"]["sampled"], *result["after"]["sampled"]} == {*map(Kind, settings.tasks.kinds)}
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
