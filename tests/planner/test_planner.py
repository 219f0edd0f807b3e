"""What `azr plan` promises: its memory is the measured memory, and its advice fits."""

from __future__ import annotations

import gc
import importlib
import json
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from azr_mlx import config, planner
from azr_mlx.cli import azr
from azr_mlx.errors import UsageError
from azr_mlx.model import device, weights
from azr_mlx.model.held import Keep
from azr_mlx.planner import lengths
from azr_mlx.types import Role
from tests.model.conftest import prompt

PRESETS = config.presets()
MAC = planner.mac(48e9, "M3 Max")


@pytest.fixture(autouse=True)
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is cached and nothing can be downloaded."""
    import huggingface_hub.constants

    def refuse(*args: object, **words: object) -> None:
        raise AssertionError("azr plan asked the network")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr(weights, "_download", refuse)


def plan(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(azr, ["plan", *words], prog_name="azr")
    return result.exit_code, result.output


# -- memory is what MLX measures


@pytest.mark.skipif(device.prepare().name != "cpu", reason="the counts were fitted on a CPU")
@pytest.mark.parametrize(("keep", "group"), [(False, 1), (True, 4)])
def test_the_predicted_peak_is_within_15_percent_of_the_measured_one(load, models, keep: bool, group: int) -> None:
    prompts, length, tokens = 12 // group, 100, 40
    policy = load("qwen3", rank=8, checkpoint_layers="false" if keep else "true", max_rows=12)
    policy.stop_tokens = frozenset()
    texts = [prompt((chr(97 + i) * 7 + "pqr" * 40)[:length]) for i in range(prompts)]
    gc.collect()  # models of tests before this one, which would be freed while it measures
    device.clear_cache()
    before = device.memory().active - sum(held(policy))
    device.reset_peak()
    groups = policy.sample_all(texts, group, seed=(0,), max_tokens=tokens)
    sampled = device.memory().peak - before
    rollouts = [one for rows in groups for one in rows]
    update = policy.update(rollouts, [1.0 if i % 2 else -1.0 for i in range(len(rollouts))])

    settings = config.with_values(
        config.Config(),
        {
            "model.id": str(models["qwen3"]),
            "lora.rank": 8,
            "optim.checkpoint_layers": "false" if keep else "true",
            "sampling.max_rows": 12,
        },
    )
    machine = planner.Machine("", "cpu", 1e10, 1e10, 1e9, 1e9, "", 1)
    work = [planner.Workload("all", prompts, group, length, tokens)]
    planned = planner.plan_memory(settings, planner.shape_of(settings.model), machine, work)
    fixed = planned.weights + planned.adapters + planned.merged
    assert fixed + planned.while_sampling == pytest.approx(sampled, rel=0.15)
    assert fixed + planned.while_learning == pytest.approx(update.peak_memory - before, rel=0.15)


def held(policy) -> list[int]:
    """Bytes of each array that a policy holds."""
    from mlx.utils import tree_flatten

    trees = policy.model.parameters(), policy.optimizer.state
    return [value.nbytes for tree in trees for _, value in tree_flatten(tree)]


@pytest.mark.parametrize("name", ["qwen2.5-coder-3b", "qwen2.5-coder-7b", "qwen3-4b", "qwen1.5-4b"])
def test_weights_and_adapters_have_the_bytes_that_mlx_counts(name: str) -> None:
    """The model is built in its exact shape and never computed."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import quantize_model

    settings = config.load(name)
    shape = planner.shape_of(settings.model)
    said = next(v for k, v in planner.PUBLISHED.items() if k == name.replace("-coder", ""))
    said = {"rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 32768, **said}
    module = importlib.import_module(f"mlx_lm.models.{said['model_type']}")
    network, _ = quantize_model(module.Model(module.ModelArgs.from_dict(said)), {}, 64, 4)
    weights.cast(network, mx.bfloat16)
    network.freeze()
    assert planner.weight_bytes(settings.model, shape, MAC) == sum(
        v.nbytes for _, v in tree_flatten(network.parameters())
    )
    linear_to_lora_layers(network, -1, {"rank": settings.lora.rank, "scale": 2.0, "dropout": 0.0})
    adapters = sum(v.size for _, v in tree_flatten(network.trainable_parameters()))
    assert planner.adapter_parameters(settings.lora, shape) == adapters


@pytest.mark.parametrize("kv_gb", [0.0, 0.001, 0.002])
def test_the_planned_width_is_the_width_that_the_sampler_decodes_at(load, models, kv_gb: float) -> None:
    policy = load("qwen3", kv_gb=kv_gb, max_rows=12)
    policy.stop_tokens = frozenset()
    policy.sample_all([prompt("a" * 30), prompt("b" * 30)], 6, seed=(0,), max_tokens=10)
    settings = config.with_values(
        config.Config(), {"model.id": str(models["qwen3"]), "sampling.kv_gb": kv_gb, "sampling.max_rows": 12}
    )
    shape = planner.shape_of(settings.model)
    cpu = planner.Machine("", "cpu", 1, 1, 1, 1, "", 1)
    one = planner.Workload("all", 2, 6, 30, 10)
    assert planner.rows_together(settings.sampling, one, planner.token_bytes(settings, shape, cpu)) == (
        policy.last_count.widest
    )


# -- every preset plans


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_plans_without_a_network(name: str) -> None:
    code, said = plan("--config", name, "--memory", "48GB")
    assert code == (1 if name == "paper" else 0)
    assert "time of a step" in said


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("memory", ["16GB", "24GB", "128GB"])
def test_what_does_not_fit_fits_with_the_advice(name: str, memory: str) -> None:
    settings, machine = config.load(name), planner.mac(planner.size(memory))
    shape = planner.shape_of(settings.model)
    words = planner.fitting_changes(settings, shape, machine)
    if (name, memory) == ("paper", "16GB"):
        assert words is None  # 8 GB of weights, 2 GB of adapters and moments
        return
    assert words is not None
    advised = config.with_values(settings, words)
    config.check(advised)
    assert planner.plan_memory(advised, shape, machine).total <= machine.room
    fits = planner.plan_memory(settings, shape, machine).total <= machine.room
    assert fits == (not words)


def test_the_advice_is_printed_as_words_that_the_command_takes() -> None:
    code, said = plan("--config", "qwen2.5-coder-7b", "--memory", "24GB")
    assert code == 1
    assert "DOES NOT FIT" in said
    line = said.split("it fits, with", 1)[1].splitlines()[1]
    code, said = plan("--config", "qwen2.5-coder-7b", "--memory", "24GB", *line.split())
    assert code == 0
    assert ": fits" in said


def test_a_model_that_can_never_fit_says_so() -> None:
    code, said = plan("--config", "qwen2.5-coder-7b", "--memory", "4GB")
    assert code == 1
    assert "take a smaller one" in said


def test_a_longer_context_or_wider_batch_or_higher_rank_never_takes_less_memory() -> None:
    told = "optim.checkpoint_layers=true"  # auto would keep less
    settings = config.load("qwen2.5-coder-3b", [told])
    shape = planner.shape_of(settings.model)
    total = planner.plan_memory(settings, shape, MAC).total
    for change in ("sampling.kv_gb=20", "sampling.solve_tokens=2048", "lora.rank=64", "optim.micro_batch_tokens=16384",
                   "optim.checkpoint_layers=false", "model.bits=8"):  # fmt: skip
        more = config.load("qwen2.5-coder-3b", [told, change, "sampling.max_rows=96"])
        assert planner.plan_memory(more, shape, MAC).total > total, change


def test_auto_keeps_what_fits_into_its_share_of_the_room() -> None:
    """The same preset on Macs of more and more memory: from recomputed blocks over kept projections to kept blocks."""
    settings = config.load("qwen2.5-coder-1.5b-instruct")
    shape = planner.shape_of(settings.model)
    found, seconds = [], []
    for memory in (16, 48, 512):
        machine = planner.Machine("", "metal", memory * 1e9, memory * 0.75e9, 4e11, 1e13, "", 8)
        found.append(planner.kept(settings, shape, machine))
        seconds.append(planner.step_costs(settings, shape, machine)[-1].seconds)
        if found[-1] is not Keep.INPUTS:
            assert planner.plan_memory(settings, shape, machine).total <= 0.75 * machine.room
    assert found == [Keep.INPUTS, Keep.PROJECTIONS, Keep.ALL]
    assert seconds == sorted(seconds, reverse=True)


# -- the work of a step is what the program counts


@pytest.mark.parametrize("keep", ["true", "projections", "false"])
def test_planned_operations_are_counted_ones_within_a_fifth(load, models, keep: str) -> None:
    """Prompts that begin alike, groups of completions of several lengths, on a thin model."""
    policy = load("qwen3", checkpoint_layers=keep, max_rows=12)
    policy.stop_tokens = frozenset()
    texts = [
        prompt("an instruction of a kind of task, which is the same for all of: " + 26 * letter) for letter in "abc"
    ]
    rollouts = [
        one for i, text in enumerate(texts) for one in policy.sample_all([text], 4, seed=(i,), max_tokens=24 + 8 * i)[0]
    ]
    policy.sample_all(texts, 4, seed=(9,), max_tokens=32)  # of the mean length: what the update's counts stand beside
    counted = policy.update(rollouts, [(-1.0) ** i for i in range(12)]).work
    settings = config.with_values(
        config.Config(),
        {"model.id": str(models["qwen3"]), "lora.rank": 4, "optim.checkpoint_layers": keep, "sampling.max_rows": 12},
    )
    machine = planner.Machine("", "cpu", 1e12, 1e12, 1e11, 1e11, "", 1)
    work = [planner.Workload("all", 3, 4, 90, 32, alike=64)]
    planned = {cost.name.removeprefix("all: "): cost.flops
               for cost in planner.step_costs(settings, planner.shape_of(settings.model), machine, work)}  # fmt: skip
    for name, flops in planned.items():
        assert flops == pytest.approx(counted[f"flops/{name}"], rel=0.2), name


def test_lengths_of_a_run_come_from_its_last_steps() -> None:
    settings = config.load("qwen2.5-coder-3b")
    table = lengths.simulated(settings)
    assert lengths.measured(settings, []) is None
    short = {f"length/solve/{kind}": 50.0 for kind in settings.tasks.kinds}
    rows = [{f"length/solve/{kind}": 900.0 for kind in settings.tasks.kinds}] + [short] * lengths.LAST
    found = lengths.measured(settings, rows)
    assert {one.reply for (role, _), one in found.items() if role is Role.SOLVE} == {50}
    assert all(found[name].reply == one.reply for name, one in table.items() if name[0] is Role.PROPOSE)
    # Prompts twice as long as simulated: 100 rollouts asked for so many tokens.
    mean = lengths.mean_prompt(settings, table)
    doubled = lengths.measured(settings, [row | {"rollouts": 100, "tokens/prefill/asked": 200 * mean} for row in rows])
    assert all(doubled[name].prompt == pytest.approx(2 * one.prompt, abs=1) for name, one in table.items())


def test_a_plan_with_the_lengths_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "length/solve/deduction": 20.0}\n')
    (tmp_path / "timings.jsonl").write_text('{"step": 0, "rollouts": 10, "tokens/prefill/asked": 5000}\n')
    code, said = plan("--config", "qwen2.5-coder-3b", "--memory", "48GB", "--lengths", str(tmp_path))
    assert code == 0
    assert "measured in a run" in said
    assert "simulated" in plan("--config", "qwen2.5-coder-3b", "--memory", "48GB")[1]


# -- where shapes come from


def test_an_unknown_model_is_one_line_that_says_what_to_do() -> None:
    result = CliRunner().invoke(azr, ["plan", "--config", "nano", "--set", "model.id=me/mine-9b", "--memory", "48GB"])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "hf download me/mine-9b config.json" in line


def test_a_cached_configuration_comes_before_the_table(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub/models--Qwen--Qwen2.5-Coder-3B/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text("abc")
    said = dict(planner.PUBLISHED["qwen2.5-3b"]) | {"num_hidden_layers": 7}
    (snapshot / "config.json").write_text(json.dumps(said))
    assert planner.shape_of(config.ModelConfig(id="Qwen/Qwen2.5-Coder-3B")).layers == 7


@pytest.mark.parametrize(
    ("name", "bits"),
    [("Qwen/Qwen2.5-Coder-3B-Instruct", None), ("mlx-community/Qwen2.5-Coder-3B-Instruct-8bit", 8)],
)
def test_names_of_conversions_are_known_by_the_model_they_convert(name: str, bits: int | None) -> None:
    shape = planner.shape_of(config.ModelConfig(id=name))
    assert (shape.width, shape.quantized.get("bits")) == (2048, bits)


def test_another_size_is_not_taken_for_a_known_one() -> None:
    with pytest.raises(UsageError):
        planner.shape_of(config.ModelConfig(id="Qwen/Qwen3-30B-A3B"))


# -- machines


@pytest.mark.parametrize(("memory", "room"), [("16GB", 10.7e9), ("36GB", 27e9), ("48GB", 36e9), ("64GiB", 51.5e9)])
def test_a_mac_may_use_what_metal_recommends(memory: str, room: float) -> None:
    assert planner.mac(planner.size(memory)).room == pytest.approx(room, rel=0.01)


@pytest.mark.parametrize("words", [["--memory", "much"], ["--memory", "48GB", "--chip", "M9"], ["--chip", "M3"]])
def test_a_machine_that_makes_no_sense_is_one_line(words: list[str]) -> None:
    result = CliRunner().invoke(azr, ["plan", "--config", "nano", *words], prog_name="azr")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def test_given_rates_are_the_roofline() -> None:
    _, said = plan("--config", "qwen2.5-coder-3b", "--memory", "48GB", "--bandwidth", "546", "--flops", "17")
    assert "546 GB/s, 17 TFLOP/s (given)" in said


def test_twice_the_bandwidth_and_flops_is_half_the_time() -> None:
    from dataclasses import replace

    settings = config.load("qwen3-4b")
    shape = planner.shape_of(settings.model)
    twice = replace(MAC, bandwidth=2 * MAC.bandwidth, flops=2 * MAC.flops, launch=MAC.launch / 2)
    slow, fast = (sum(c.seconds for c in planner.step_costs(settings, shape, m)) for m in (MAC, twice))
    assert slow == pytest.approx(2 * fast)


def test_without_a_described_machine_this_one_is_measured_or_looked_up() -> None:
    machine = planner.here()
    assert machine.memory > 1e9
    # Of a machine that others use as well, so no more than a sign of life.
    assert machine.flops > 0
    assert machine.bandwidth > 0


def test_the_planner_is_light_to_import() -> None:
    import subprocess

    code = "import sys, azr_mlx.planner; print([m for m in ('mlx', 'numpy', 'huggingface_hub') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == "[]"


def test_a_plan_of_several_macs_names_each_and_what_the_network_carries() -> None:
    settings = config.load("qwen2.5-coder-3b")
    lines, fits = planner.plan_command(settings, "48GB", "M3 Max", workers="M3 Max, M1 16GB")
    text = "\n".join(lines)
    assert not fits
    assert [line.split()[1] for line in lines if "GPU cores  " in line][-2:] == ["M3", "M1"]
    assert re.search(r"Apple M1 .*DOES NOT FIT", text)
    assert "120 MB of adapters to each worker" in text
    gain = float(re.search(r"([0-9.]+) times as fast", text)[1])
    assert 1.5 < gain < 2.2  # two of three machines count


@pytest.mark.parametrize("text", ["", "  ,M1", "M9 16GB"])
def test_workers_that_are_no_chips_are_one_line(text: str) -> None:
    from azr_mlx.planner import several

    with pytest.raises(UsageError):
        several.workers_of(text)
