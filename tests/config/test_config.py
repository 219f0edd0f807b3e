"""What a configuration may be, and the one line that says why another may not."""

from __future__ import annotations

import contextlib
import math
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from azr_mlx import config
from azr_mlx.config import Config, ConfigError, load, parse
from azr_mlx.types import Kind


def refusal(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(None, words)
    line = str(caught.value)
    assert "\n" not in line
    return line


def refused_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    line = str(caught.value)
    assert "\n" not in line
    assert "mine.yaml" in line
    return line.partition("mine.yaml")[2]


# -- the type of an option decides how its text is read


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "1.0e-5", "0.00001", ".00001", "'1e-5'"])
def test_a_rate_may_be_written_in_every_usual_way(text: str) -> None:
    assert parse(f"optim:\n  lr: {text}\n").optim.lr == 1e-5
    assert load(None, [f"optim.lr={text}"]).optim.lr == 1e-5


def test_a_whole_number_serves_as_a_number_and_becomes_one_in_arithmetic() -> None:
    assert parse("sampling: {temperature: 1}").sampling.temperature == 1.0


def test_a_whole_number_may_be_written_with_an_exponent_or_underscores() -> None:
    assert parse("steps: 1e3").steps == 1000
    assert parse("buffer: {capacity: 16_384}").buffer.capacity == 16384


def test_off_is_a_word_where_a_word_belongs() -> None:
    assert parse("executor:\n  level: off\n").executor.level == "off"


@pytest.mark.parametrize("text", ["yes", "on", "1", "y"])
def test_only_true_and_false_are_truth_values(tmp_path: Path, text: str) -> None:
    line = refused_file(tmp_path, f"tracking:\n  wandb: {text}\n")
    assert line == f":2: tracking.wandb is {text}: it must be true or false"


def test_a_revision_that_looks_like_a_number_stays_text() -> None:
    assert parse("model: {revision: 12e4567}").model.revision == "12e4567"
    assert parse("model: {revision: 0755}").model.revision == "0755"


def test_a_leading_zero_is_not_octal_and_a_colon_is_not_sexagesimal(tmp_path: Path) -> None:
    assert parse("steps: 010").steps == 10
    assert "steps is 1:30: it must be a whole number" in refused_file(tmp_path, "steps: 1:30")


def test_a_list_becomes_a_tuple_and_may_be_written_with_commas() -> None:
    assert parse("tasks:\n  kinds:\n    - deduction\n    - induction\n").tasks.kinds == ("deduction", "induction")
    assert load(None, ["tasks.kinds=[deduction, induction]"]).tasks.kinds == ("deduction", "induction")
    assert load(None, ["tasks.kinds=deduction,induction"]).tasks.kinds == ("deduction", "induction")


def test_a_section_may_be_empty_and_a_file_too() -> None:
    assert parse("optim:\n  # lr: 1e-5\n") == Config()
    assert parse("# nothing\n") == Config()


def test_words_of_the_command_line_overlay_the_file_and_later_ones_win(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("steps: 5\noptim: {lr: 1e-4}\n")
    settings = load(tmp_path / "mine.yaml", ["steps=6", "steps=7"])
    assert (settings.steps, settings.optim.lr) == (7, 1e-4)


# -- the one line of each refusal


def test_an_unknown_key_names_its_line_the_nearest_key_and_what_that_may_be(tmp_path: Path) -> None:
    line = refused_file(tmp_path, "steps: 3\noptim:\n  learning_rate: 1e-5\n")
    expected = "optim.learning_rate is not a setting; the nearest is optim.lr (a number above 0; default 2e-05)"
    assert line == f":3: {expected}"


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("temperature=1", "sampling.temperature"),
        ("optim.lrr=1", "optim.lr"),
        ("lora.r=8", "lora.rank"),
        ("max_steps=8", "steps"),
        ("batch.proposal=8", "batch.proposals"),
        ("kl=0", "loss.kl"),
        ("model.name=x", "model.id"),
    ],
)
def test_the_nearest_key_is_the_one_that_was_meant(word: str, nearest: str) -> None:
    if word.startswith("model.name"):
        assert "the nearest is " in refusal(word)  # nothing is near: still a valid key is named
    else:
        assert f"the nearest is {nearest} (" in refusal(word)


def test_a_key_given_twice_names_both_lines(tmp_path: Path) -> None:
    line = refused_file(tmp_path, "optim:\n  lr: 1e-5\n  beta1: 0.9\n  lr: 1e-4\n")
    assert line == ":4: optim.lr is given twice, first on line 2"


def test_a_value_out_of_range_says_what_is_allowed() -> None:
    assert refusal("optim.lr=0") == "--set optim.lr=0: optim.lr is 0: it must be a number above 0"
    assert refusal("lora.rank=0").endswith("lora.rank is 0: it must be a whole number from 1 to 512")
    assert refusal("optim.beta1=1").endswith("it must be a number of 0 or more and below 1")
    assert refusal("steps=-1").endswith("steps is -1: it must be a whole number of 0 or more")


@pytest.mark.parametrize("text", ["nan", ".nan", "inf", ".inf", "-inf", "1e999"])
def test_a_rate_must_be_finite(text: str) -> None:
    assert "it must be a number above 0" in refusal(f"optim.lr={text}")


def test_a_number_too_long_to_be_meant_is_refused() -> None:
    assert "it must be a whole number" in refusal(f"steps={'9' * 5000}")
    assert "it must be a number above 0" in refusal(f"optim.lr={'9' * 90}e{'9' * 9}")


def test_a_wrong_type_says_what_is_allowed() -> None:
    assert refusal("steps=many").endswith("steps is many: it must be a whole number of 0 or more")
    assert refusal("steps=1.5").endswith("steps is 1.5: it must be a whole number of 0 or more")
    assert refusal("steps=true").endswith("steps is true: it must be a whole number of 0 or more")
    assert refusal("optim.lr=[1, 2]").endswith("optim.lr is a list: it must be a number above 0")
    assert refusal("optim.lr={a: 1}").endswith("optim.lr is a section: it must be a number above 0")


def test_an_unknown_choice_names_the_nearest_one() -> None:
    line = refusal("advantage.baseline=by_promt")
    assert line.endswith("it must be one of by_task_role, by_prompt; did you mean by_prompt?")
    assert refusal("tasks.kinds=deduction,abducton").endswith(
        f"tasks.kinds is abducton: it must be some of {', '.join(Kind)}; did you mean abduction?"
    )


def test_an_empty_value_is_not_a_default(tmp_path: Path) -> None:
    line = refused_file(tmp_path, "optim:\n  lr:\n")
    assert line == ":2: optim.lr is empty: it must be a number above 0; remove the line to keep the default"


def test_a_section_is_not_a_value() -> None:
    assert refusal("lora=16").endswith("lora is a section, not a setting: it holds rank, scale, layers, keys")


def test_a_word_without_an_equals_sign_shows_the_form() -> None:
    assert refusal("steps") == "--set steps: write it as key=value, for example --set optim.lr=1e-5"


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    assert refused_file(tmp_path, "steps: 3\noptim: [1\n").startswith(":3: is not YAML: ")
    assert refused_file(tmp_path, "steps: 3\n\tlr: 1\n").startswith(":2: is not YAML: ")
    assert "must hold `key: value` lines, not a list" in refused_file(tmp_path, "- steps\n")
    assert "is not YAML" in refused_file(tmp_path, "steps: 1\n---\nsteps: 2\n")


def test_a_file_that_is_not_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "weights.yaml").write_bytes(b"\xff\xfe\x00\x93")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "weights.yaml")


def test_an_unknown_preset_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"nanno: no such file and no such preset; .* did you mean nano\?"):
        load("nanno")


# -- combinations


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["tasks.kinds=[]"], "tasks.kinds is empty"),
        (["tasks.kinds=deduction,deduction"], "names a kind twice"),
        (["batch.proposals=0", "batch.solves=0"], "a step would do nothing"),
        (["batch.solves=0", "batch.train_attempts=false", "batch.train_proposer=false"], "nothing would be trained"),
        (["advantage.baseline=by_prompt", "batch.train_attempts=false"], "set batch.solve_group to 2 or more"),
        (["advantage.baseline=by_prompt", "batch.attempts=1"], "turn on batch.train_attempts"),
        (
            ["advantage.baseline=by_prompt", "batch.train_attempts=false", "batch.solve_group=4", "batch.solves=0"],
            "single",
        ),
        (["reward.correct=-1"], "reward.correct -1 must be above reward.wrong -0.5"),
        (["model.mode=mxfp4"], "model.mode mxfp4 needs model.group_size 32 and model.bits 4, not 64 and 4"),
        (["model.group_size=16"], "needs model.mode nvfp4"),
        (["model.thinking=true"], "model.thinking needs model.style chat, not r1"),
        (["lora.layers=0"], "lora.layers 0 would train nothing"),
        (["buffer.capacity=10"], "buffer.seed_size 64 is more than buffer.capacity 10"),
        (["tracking.wandb=true", "tracking.wandb_project="], "tracking.sinks wandb needs tracking.wandb_project"),
        (["tracking.sinks=trackio", "tracking.wandb_project= "], "tracking.sinks trackio needs tracking.wandb_project"),
        (["name=a/b"], "name is a/b: it names a folder"),
        (["name=.."], "it names a folder"),
        (["model.id="], "model.id is empty"),
    ],
)
def test_an_impossible_combination_names_both_fields(words: list[str], part: str) -> None:
    assert part in refusal(*words)


def test_a_grouped_baseline_is_possible_once_there_are_groups() -> None:
    load(None, ["advantage.baseline=by_prompt", "batch.train_attempts=false", "batch.solve_group=4"])
    load(None, ["model.mode=nvfp4", "model.group_size=16"])


def test_the_code_is_checked_as_the_files_are() -> None:
    wrong = config.with_values(Config(), {"optim.lr": -1.0})
    with pytest.raises(ConfigError, match=r"optim.lr is -1.0: it must be a number above 0"):
        config.check(wrong)
    with pytest.raises(ConfigError, match="steps is true"):
        config.check(config.with_values(Config(), {"steps": True}))


def test_the_defaults_raise_no_caution() -> None:
    assert config.cautions(Config()) == []


def test_a_temperature_other_than_one_says_how_it_biases_the_ratio() -> None:
    # Tokens are drawn from p^(1/T): a factor of ten in p becomes 10^(1/0.7) = 26.8.
    (line,) = config.cautions(load(None, ["sampling.temperature=0.7"]))
    assert "ten times likelier than another is drawn 26.8 times as often" in line


def test_a_nucleus_says_how_it_biases_the_ratio() -> None:
    # The kept tokens are drawn 1 / 0.95 = 1.053 times too often; 1.053^100 = 169.
    (line,) = config.cautions(load(None, ["sampling.top_p=0.95"]))
    assert "off by up to 1.05 a token and 1.7e+02 over 100 tokens" in line


@pytest.mark.parametrize(
    "word",
    [
        "batch.attempts=1",
        "advantage.baseline=by_prompt",
        "reward.malformed=0",
        "executor.level=off",
        "optim.warmup_steps=900",
        "optim.schedule=inverse_sqrt",
    ],
)
def test_what_surprises_is_said(word: str) -> None:
    assert any(word.partition("=")[0] in line for line in config.cautions(load(None, [word])))


# -- writing


def values(option: config.Option) -> st.SearchStrategy[Any]:
    """Every value that the option permits."""
    if option.many:
        words = st.sampled_from(option.choices) if option.choices else st.text(st.characters(codec="utf-8"), max_size=8)
        return st.lists(words, max_size=3).map(tuple)
    if option.choices is not None:
        return st.sampled_from(option.choices)
    if option.type is bool:
        return st.booleans()
    if option.type is str:
        return st.text(string.ascii_letters, min_size=1) | st.text(st.characters(codec="utf-8"), max_size=20)
    if option.type is int:
        return st.integers(int(option.low or 0), int(option.high) if option.high is not None else None)
    return st.floats(
        min_value=option.low if option.low is not None else option.above,
        max_value=option.high if option.high is not None else option.below,
        exclude_min=option.above is not None,
        exclude_max=option.below is not None,
        allow_nan=False,
        allow_infinity=False,
    )


changes = st.lists(st.sampled_from(list(config.options().values())), min_size=1, max_size=6, unique=True).flatmap(
    lambda some: st.fixed_dictionaries({option.key: values(option) for option in some})
)


@given(changes)
def test_a_written_configuration_reads_back_equal(turned: dict[str, Any]) -> None:
    settings = config.with_values(Config(), turned)
    try:
        config.check(settings)
    except ConfigError:
        assume(False)
    assert parse(config.dump(settings, comment="azr_mlx 0.1.0\nany: text")) == settings


@given(st.text(max_size=60))
def test_no_text_makes_the_reader_raise_anything_but_its_own_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        parse(text)


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_word_makes_the_reader_raise_anything_but_its_own_error(key: str, text: str) -> None:
    with contextlib.suppress(ConfigError):
        load(None, [f"{key}={text}"])
    with contextlib.suppress(ConfigError):
        load(None, [f"name={text}", f"tasks.kinds={text}"])


@given(st.text(max_size=20))
def test_every_refusal_is_one_printable_line(text: str) -> None:
    assert refusal(f"{text}x.y={text}").isprintable()


def test_a_comment_above_a_written_configuration_is_a_comment() -> None:
    text = config.dump(Config(), comment="azr_mlx 0.1.0\nsteps: 3")
    assert text.startswith("# azr_mlx 0.1.0\n# steps: 3\nname: run\n")


def test_differences_are_listed_field_by_field() -> None:
    assert config.diff(Config(), load(None, ["optim.lr=1e-4", "steps=9"])) == [
        ("steps", 200, 9),
        ("optim.lr", 2e-5, 1e-4),
    ]
    assert config.diff(Config(), Config()) == []


def test_what_may_change_on_resume_does_not_decide_what_is_learned() -> None:
    assert {"steps", "minutes", "checkpoint.every", "tracking.wandb", "sampling.max_rows"} <= config.RESUMABLE
    assert config.RESUMABLE.issubset(config.options())
    fixed = {"seed", "model.id", "lora.rank", "optim.lr", "batch.attempts", "tasks.kinds", "evaluation.probe"}
    assert not fixed & config.RESUMABLE


# -- the options themselves


@pytest.mark.parametrize("option", config.options().values(), ids=lambda option: option.key)
def test_every_option_says_what_it_is_and_permits_its_default(option: config.Option) -> None:
    assert option.help
    assert not option.help.endswith(".")
    assert option.permits(option.default)
    assert option.type in (int, float, bool, str) or option.many
    assert not (option.type is float and isinstance(option.default, float) and not math.isfinite(option.default))


def test_no_default_stands_twice() -> None:
    """A preset that repeats a default on purpose is fine; two options of one name and meaning would not be."""
    helps = [option.help for option in config.options().values()]
    assert len(set(helps)) == len(helps)


@pytest.mark.parametrize(
    ("sets", "named"),
    [
        (["evaluation.bench=humaneval"], "evaluation.bench has no effect without evaluation.every"),
        (["stop.plateau=3"], "stop.plateau 3 has no effect without evaluation.every"),
        (["evaluation.probe=none", "evaluation.every=5"], "(evaluation.probe none): evaluation.every"),
        (["evaluation.probe=none", "evaluation.minutes=5"], "(evaluation.probe none): evaluation.minutes"),
    ],
)
def test_a_setting_without_effect_is_told(sets: list[str], named: str) -> None:
    [line] = config.cautions(config.load(None, sets))
    assert named in line


def test_settings_that_need_each_other_are_quiet_together() -> None:
    together = ["evaluation.every=5", "evaluation.bench=humaneval", "stop.plateau=3", "evaluation.minutes=1"]
    assert config.cautions(config.load(None, together)) == []
    assert (
        config.cautions(config.load(None, ["evaluation.probe=none", "evaluation.every=5", "evaluation.bench=mbpp"]))
        == []
    )


def test_a_file_that_is_nested_too_deep_is_one_line(tmp_path):
    path = tmp_path / "deep.yaml"
    path.write_text("seed: " + "[" * 5000 + "]" * 5000)
    with pytest.raises(config.ConfigError, match=r"deep\.yaml: is not YAML"):
        config.load(path)
