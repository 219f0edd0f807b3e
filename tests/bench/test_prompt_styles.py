"""`azr prompts` on the embedded model: every figure, beside what guessing would get, in a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from azr_mlx.cli import azr
from azr_mlx.config.prompt_style import parse_style

NANO = Path(__file__).resolve().parents[2] / "checkpoints" / "qwen3-nano"
needs_nano = pytest.mark.skipif(not (NANO / "model.safetensors").exists(), reason="the embedded model is not built yet")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """A small measurement of two styles: the figures and the table."""
    file = tmp_path_factory.mktemp("styles") / "styles.json"
    words = ["--tasks", "4", "--samples", "2", "--proposals", "6", "--tokens", "48", "--json", str(file)]
    words += ["--set", "tasks.kinds=deduction,abduction", "--style", "compact,text-direct"]
    done = CliRunner().invoke(azr, ["prompts", "--config", "nano", *words])
    assert done.exit_code == 0, done.output
    return json.loads(file.read_text()), done.stdout


@needs_nano
def test_the_style_that_a_model_was_trained_on_is_told_from_another(measured: tuple[dict[str, Any], str]) -> None:
    rows = {(row["style"], row["role"], row["kind"]): row for row in measured[0]["rows"]}
    assert len(rows) == 2 * 2 * 2
    for kind in ("deduction", "abduction"):
        own, foreign = (rows[style, "solve", kind] for style in ("compact", "text-direct"))
        assert own["prompt_tokens"] < foreign["prompt_tokens"]
        for row in (own, foreign):
            assert row["units"] == 4
            assert row["sampled"]["value"] <= row["pass_at_k"]["value"] <= 1
            for share in (row["formed"], row["sampled"], row["pass_at_k"], row["greedy"]):
                assert 0 <= share["low"] <= share["value"] <= share["high"] <= 1
        proposed = rows["compact", "propose", kind]
        assert proposed["valid"]["value"] > rows["text-direct", "propose", kind]["valid"]["value"]
        assert proposed["new"]["value"] <= proposed["valid"]["value"]
        refused = sum(count for _, count in proposed["refused"])
        assert refused == round(6 * (1 - proposed["valid"]["value"]))


@needs_nano
def test_the_table_is_markdown_with_what_guessing_gets(measured: tuple[dict[str, Any], str]) -> None:
    found, printed = measured
    assert set(found["guesses"]) == {"copying", "commonest"}
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    widths = [line.count("|") for line in lines]
    assert set(widths) == {10, 9}
    assert sum("guess" in line for line in lines) == 4
    assert sum("text-direct" in line for line in lines) == 4


def test_a_style_is_shown_as_a_file_to_copy() -> None:
    done = CliRunner().invoke(azr, ["prompts", "--show", "chat"])
    assert done.exit_code == 0
    style = parse_style(done.stdout, "mine")
    assert style.chat
    assert all(wording.text for wording in style.wordings.values())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "say whom to ask with --model or --config; the styles are chat, chat-direct"),
        (["--config", "nano", "--style", "no.yaml"], "there is no prompt style no.yaml"),
        (["--show", "chta"], "did you mean chat"),
    ],
)
def test_what_cannot_be_measured_is_one_line(words: list[str], told: str) -> None:
    done = CliRunner().invoke(azr, ["prompts", *words])
    assert done.exit_code == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
