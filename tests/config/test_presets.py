"""Every shipped configuration loads, explains itself and claims nothing that it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from azr_mlx import config, paths

NAMES = config.presets()


def test_the_presets_are_there() -> None:
    assert set(NAMES) >= {
        "nano",
        "nano-long",
        "qwen2.5-coder-3b",
        "qwen2.5-coder-7b",
        "qwen3-4b",
        "qwen1.5-4b",
        "paper",
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_loads_by_name_and_by_path_without_a_caution(name: str, root: Path) -> None:
    by_name = config.load(name)
    assert by_name == config.load(root / "configs" / f"{name}.yaml")
    assert by_name.name == name
    assert config.cautions(by_name) == []
    assert config.parse(config.dump(by_name)) == by_name


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_ordinary_yaml_for_other_readers(name: str, root: Path) -> None:
    """1.0e-5, not 1e-5: YAML 1.1 readers take the latter for text."""
    tree = yaml.safe_load((root / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))
    flat = {f"{a}.{b}": v for a, part in tree.items() if isinstance(part, dict) for b, v in part.items()}
    for key, value in flat.items():
        assert config.flatten(config.load(name))[key] == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_begins_with_a_line_about_itself(name: str, root: Path) -> None:
    first = (root / "configs" / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
    assert first.startswith("# ")


def test_nano_needs_no_download_and_is_bounded_by_the_clock() -> None:
    nano = config.load("nano")
    assert nano.model.id == "checkpoints/qwen3-nano"
    assert nano.minutes == 10


def test_the_paper_preset_holds_the_published_numbers() -> None:
    """AZR section 4 and the published scripts: 64 prompts of each of 3 kinds and 2 roles, n = 8, K = 6, AdamW 1e-6."""
    paper = config.load("paper")
    assert (paper.batch.proposals, paper.batch.solves, paper.batch.attempts, paper.batch.solve_group) == (64, 64, 8, 1)
    assert (paper.tasks.references, paper.tasks.induction_pairs) == (6, 10)
    assert (paper.sampling.temperature, paper.sampling.top_p) == (1.0, 1.0)
    assert (paper.sampling.prompt_tokens, paper.sampling.propose_tokens, paper.sampling.solve_tokens) == (
        6144,
        8096,
        8096,
    )
    assert (paper.optim.lr, paper.optim.beta1, paper.optim.beta2, paper.optim.grad_clip) == (1e-6, 0.9, 0.999, 1.0)
    assert (paper.loss.clip_low, paper.loss.clip_high, paper.loss.kl, paper.loss.updates_per_batch) == (0.2, 0.2, 0, 1)
    assert (paper.reward.correct, paper.reward.wrong, paper.reward.malformed, paper.reward.unlearnable) == (
        1,
        -0.5,
        -1,
        -0.5,
    )
    assert (paper.advantage.baseline, paper.advantage.per, paper.advantage.small_set) == ("by_task_role", "token", 0)
    assert (paper.buffer.capacity, paper.buffer.seed_size, paper.steps) == (16384, 256, 500)
    assert not paper.batch.train_attempts


# -- where they are found


def test_the_folders_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(paths.HOME_VARIABLE, raising=False)
    assert paths.shipped() == root
    assert paths.resolve_existing("configs/nano.yaml") == root / "configs/nano.yaml"
    assert paths.resolve_existing("configs/none.yaml") is None
    assert config.load("nano").name == "nano"


def test_a_file_in_the_working_folder_comes_first_then_the_home_then_what_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("work", "home"):
        (tmp_path / place / "configs").mkdir(parents=True)
        (tmp_path / place / "configs" / "nano.yaml").write_text("steps: 1\n")
    monkeypatch.setenv(paths.HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    assert paths.resolve_existing("configs/nano.yaml") == Path("configs/nano.yaml")
    (tmp_path / "work" / "configs" / "nano.yaml").unlink()
    assert paths.resolve_existing("configs/nano.yaml") == tmp_path / "home" / "configs" / "nano.yaml"


def test_runs_go_below_the_working_folder_its_clone_or_the_named_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.delenv(paths.HOME_VARIABLE, raising=False)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "nano.yaml").write_text("")  # somebody's copy of a preset makes no clone
    monkeypatch.chdir(tmp_path)
    assert (paths.checkpoints(), paths.logs()) == (tmp_path / "checkpoints", tmp_path / "logs")
    monkeypatch.chdir(root / "docs")
    assert (paths.checkpoints(), paths.logs()) == (root / "checkpoints", root / "logs")
    monkeypatch.setenv(paths.HOME_VARIABLE, str(tmp_path / "home"))
    assert (paths.checkpoints(), paths.logs()) == (tmp_path / "home" / "checkpoints", tmp_path / "home" / "logs")


def test_an_installed_package_brings_its_own_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "azr_mlx"
    (package / "shipped" / "configs").mkdir(parents=True)
    monkeypatch.setattr(paths, "__file__", str(package / "paths.py"))
    with pytest.raises(paths.AzrError, match="is incomplete: it has no presets; install azr-mlx again"):
        config.load("nano")
    (package / "shipped" / "configs" / "nano.yaml").write_text("steps: 3\n")
    assert config.load("nano").steps == 3


def test_what_is_typed_is_quoted_and_relative_where_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zwölf Äpfel").mkdir()
    assert paths.typed(tmp_path / "zwölf Äpfel") == "'zwölf Äpfel'"
    assert paths.typed("checkpoints/qwen3-nano") == str(root / "checkpoints/qwen3-nano")
    assert paths.typed("Qwen/Qwen2.5-Coder-3B") == "Qwen/Qwen2.5-Coder-3B"


def test_a_run_folder_is_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(config.dump(config.load("nano"), comment="azr_mlx 0.1.0"))
    assert config.load(tmp_path) == config.load("nano")
