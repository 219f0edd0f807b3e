"""`azr eval` from end to end: on completions without MLX, and on a tiny model with an adapter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from azr_mlx.cli import azr
from azr_mlx.errors import AzrError, UsageError
from azr_mlx.evaluation import Score
from azr_mlx.evaluation.command import load_policy
from azr_mlx.evaluation.plan import Choice, make_plan
from azr_mlx.evaluation.request import EvalOptions
from azr_mlx.evaluation.verdicts import VerdictFile, verdict_key
from azr_mlx.executor import Executor
from azr_mlx.types import Completion, Rollout, Stop
from azr_mlx.versions import result_versions
from tests.evaluation.conftest import HUMANEVAL, MBPP, write_bench


def call(*words: object) -> Result:
    return CliRunner().invoke(azr, ["eval", *map(str, words)])


def completions(path: Path, *wrong: str) -> Path:
    rows = [
        {"task_id": one["task_id"], "completion": "    pass" if one["task_id"] in wrong else one["canonical_solution"]}
        for one in HUMANEVAL
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_completions_are_judged_and_written_in_human_evals_format(tmp_path: Path) -> None:
    bench = write_bench(tmp_path, "humaneval")
    path = completions(tmp_path / "c.jsonl", "Own/1")
    said = call("--bench", bench, "--completions", path, "--logs", tmp_path / "logs", "--json")
    assert said.exit_code == 0, said.output
    (record,) = json.loads(said.stdout)
    assert record["scores"]["pass@1"]["value"] == 0.5
    rows = [json.loads(line) for line in (tmp_path / "c.jsonl_results.jsonl").read_text().splitlines()]
    assert [(row["task_id"], row["passed"], row["result"][:6]) for row in rows] == [
        ("Own/0", True, "passed"), ("Own/1", False, "failed"),
    ]  # fmt: skip
    assert json.loads((tmp_path / "logs/evaluation_results.json").read_text()) == [record]


def test_raw_replies_are_judged_by_the_answers_in_them(tmp_path: Path) -> None:
    bench = write_bench(tmp_path, "humaneval")
    path = tmp_path / "replies.jsonl"
    replies = [f"Sure:\n```python\n{one['prompt']}{one['canonical_solution']}```\nDone." for one in HUMANEVAL]
    begun = HUMANEVAL[0]["prompt"] + HUMANEVAL[0]["canonical_solution"] + "```\nDone."
    rows = [{"task_id": "Own/0", "reply": begun}, {"task_id": "Own/1", "response": replies[1], "id": 7}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = ["--bench", bench, "--completions", path, "--logs", tmp_path / "logs", "--prompt", "chat"]
    said = call(*common, "--json", "--extract")
    assert said.exit_code == 0, said.output
    (record,) = json.loads(said.stdout)
    assert record["scores"]["pass@1"]["value"] == 1.0
    assert (record["prompt"], record["answer"]) == ("given replies, read as of chat", "block")
    assert "needs a task_id and a completion" in call(*common).output


def test_one_sample_is_explained_from_prompt_to_verdict(tmp_path: Path) -> None:
    bench = write_bench(tmp_path, "humaneval")
    path = tmp_path / "replies.jsonl"
    body = HUMANEVAL[0]["canonical_solution"]
    path.write_text(json.dumps({"task_id": "Own/0", "text": body + "\ndef other():\n    \x1b[31mpass"}) + "\n")
    said = call("--bench", bench, "--completions", path, "--extract", "--explain", "--prompt", "base")
    assert said.exit_code == 0, said.output
    for part in (
        "Humaneval, problem Own/0, prompt base", "answer continue: the text up to its first stop text",
        HUMANEVAL[0]["prompt"].strip(), f"cut at '\\ndef', after {len(body)} of", "verdict: passed", "\\x1b[31m",
    ):  # fmt: skip
        assert part in said.output
    assert "\x1b" not in said.output, "what a model wrote never reaches the terminal as it is"
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(("python", "noted"), [("", False), ("3.0.1", True)], ids=["same versions", "after an upgrade"])
def test_judging_goes_on_with_the_verdicts_of_an_interrupted_one(tmp_path: Path, python: str, noted: bool) -> None:
    """The kept verdict is a false one here, so that it shows that nothing was judged again."""
    bench = write_bench(tmp_path, "humaneval")
    path = completions(tmp_path / "c.jsonl")
    versions = result_versions()
    with VerdictFile(path, make_plan(Choice(str(bench))), versions | ({"python": python} if python else {})) as file:
        right = HUMANEVAL[1]
        file.add(verdict_key(right["task_id"], right["canonical_solution"], None), Score(False, "timed out"))
        file.add(verdict_key("Own/0", "another completion", None), Score(False, "timed out"))
    with (tmp_path / "c.jsonl_results.jsonl.part").open("a") as cut:
        cut.write('{"key": "half a li')
    said = call("--bench", bench, "--completions", path, "--logs", tmp_path / "logs", "--json")
    assert said.exit_code == 0, said.output
    (record,) = json.loads(said.stdout)
    assert record["scores"]["pass@1"]["value"] == 0.5
    assert "going on from 1 verdicts" in said.stderr
    assert any("1 verdicts were found by other versions (python 3.0.1" in note for note in record["notes"]) is noted
    assert not (tmp_path / "c.jsonl_results.jsonl.part").exists()


def test_verdicts_of_other_rules_are_not_gone_on_from(tmp_path: Path) -> None:
    path = completions(tmp_path / "c.jsonl")
    plan = make_plan(Choice(str(write_bench(tmp_path, "humaneval", seconds=2))))
    with VerdictFile(path, plan, {}) as file:
        file.add("k", Score(True, "passed"))
    other = make_plan(Choice(str(write_bench(tmp_path, "humaneval", seconds=1))))
    with VerdictFile(path, other, {}) as file:
        assert file.found == {}
        with pytest.raises(AzrError, match="is being judged by another evaluation"):
            VerdictFile(path, other, {})
        file.add("k", Score(True, "passed", {"base": True}, "++"))
        file.add("h", Score(False, "failed: the sandbox", harness=True))
    with VerdictFile(path, other, {}) as file:
        assert file.found == {"k": Score(True, "passed", {"base": True}, "++")}, "a fault of the sandbox is no verdict"


def test_a_result_names_the_problems_that_shared_a_process_with_their_test(tmp_path: Path) -> None:
    """The setup of problem 12 makes an object of a class of the solution; that of problem 2 needs nothing."""
    bench = write_bench(tmp_path, "mbpp")
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"task_id": one["task_id"], "completion": one["code"]}) + "\n" for one in MBPP))
    said = call("--bench", bench, "--completions", path, "--logs", tmp_path / "logs", "--json")
    assert said.exit_code == 0, said.output
    (record,) = json.loads(said.stdout)
    assert record["judged_in_process"] == ["12"]
    rows = [json.loads(line) for line in (tmp_path / "c.jsonl_results.jsonl").read_text().splitlines()]
    assert {row["task_id"]: row["mode"] for row in rows} == {"2": "two-process", "12": "in-process"}
    told = call("--bench", bench, "--completions", path, "--logs", tmp_path / "more")
    assert "judged in one process with their test" in " ".join(told.output.split())


def test_judging_completions_loads_no_mlx(tmp_path: Path) -> None:
    bench = write_bench(tmp_path, "humaneval")
    path = completions(tmp_path / "c.jsonl")
    words = ["eval", "--bench", str(bench), "--completions", str(path), "--logs", str(tmp_path)]
    code = (
        "import sys; sys.modules['mlx'] = sys.modules['mlx_lm'] = None\n"
        f"from azr_mlx.cli import azr\nazr({words!r}, standalone_mode=False)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)


def test_the_table_says_score_interval_and_notes(tmp_path: Path) -> None:
    bench = write_bench(tmp_path, "humaneval", rows=164, note="This is a note.")
    said = call("--bench", bench, "--completions", completions(tmp_path / "c.jsonl", "Own/0"), "--logs", tmp_path)
    for part in ("pass@1", "50.0 %", "9.5 to 90.5", "2 rows instead of 164", "note: This is a note.", "0 timed out"):
        assert part in said.output


def test_two_files_of_completions_are_compared_task_by_task(tmp_path: Path) -> None:
    bench = write_bench(tmp_path, "humaneval")
    worse, better = (
        completions(tmp_path / "worse.jsonl", "Own/0", "Own/1"),
        completions(tmp_path / "better.jsonl", "Own/1"),
    )
    said = call("--bench", bench, "--completions", better, "--compare", worse, "--logs", tmp_path)
    assert "+50.0 points" in said.output
    assert "1 won, 0 lost, exact p = 1: chance alone may well do this" in said.output
    assert "won: Own/0" in said.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say what to evaluate with --bench"),
        (["--bench", "nothing"], "there is no benchmark 'nothing'; there are"),
        (["--bench", "BENCH", "--prompt", "sing"], "no prompt 'sing'; there are base, chat"),
        (["--bench", "BENCH", "--samples", "2"], "greedy samples are all alike: add --temperature"),
        (["--bench", "BENCH", "--k", "5"], "pass@5 needs --samples 5 or more, not 1"),
        (["--bench", "BENCH", "--k", "x"], "--k x must be whole numbers"),
        (["--bench", "BENCH", "--data", "nowhere.jsonl"], "there is no file nowhere.jsonl"),
        (["--bench", "BENCH", "--level", "hard"], "no level 'hard'"),
        (["--bench", "BENCH", "--compare"], "--compare needs --adapter"),
        (["--bench", "BENCH", "--adapter", "nowhere"], "--adapter nowhere is no adapter"),
        (["--bench", "BENCH,BENCH", "--data", "x"], "one benchmark at a time"),
        (["--bench", "BENCH", "--completions", "FILE", "--k", "2"], "needs as many completions of every task"),
        (["--bench", "BENCH", "--completions", "HALF"], "lacks 1 of 2 problems, Own/1 first: --partial"),
    ],
)
def test_bad_use_is_one_line_and_exit_2(tmp_path: Path, words: list[str], said: str) -> None:
    named = {"BENCH": str(write_bench(tmp_path, "humaneval")), "FILE": str(completions(tmp_path / "c.jsonl"))}
    half = tmp_path / "half.jsonl"
    half.write_text((tmp_path / "c.jsonl").read_text().splitlines()[0] + "\n")
    named |= {"HALF": str(half), "BENCH,BENCH": f"{named['BENCH']},{named['BENCH']}"}
    result = call(*[named.get(word, word) for word in words], "--logs", tmp_path / "logs")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.output
    assert said in result.stderr


def test_partial_completions_count_what_is_there(tmp_path: Path) -> None:
    bench = write_bench(tmp_path, "humaneval")
    path = completions(tmp_path / "c.jsonl")
    path.write_text(path.read_text().splitlines()[0] + "\n")
    said = call("--bench", bench, "--completions", path, "--partial", "--logs", tmp_path)
    assert "100.0 %" in said.output
    assert "1 problems have no completion and are not counted" in said.output


# -- with a model


class Parrot:
    """A policy that knows the answers to some questions."""

    def __init__(self, known: dict[str, str]) -> None:
        self.known = known
        self.asked: list[str] = []

    def render_chat(self, user_text: str, prefill: str = "") -> str:
        return f"user: {user_text}\nassistant: {prefill}"

    def sample(self, prompts, n=1, *, max_tokens, **options):
        for i, prompt in reversed(list(enumerate(prompts))):  # rows end in any order
            self.asked.append(prompt.text)
            text = next((known for stub, known in self.known.items() if stub in prompt.text), "    pass\n")
            stop = Stop.LENGTH if text.endswith("...") else Stop.EOS
            yield i, 0, Rollout(prompt, (1,), Completion((5,), (0.0,), text, stop))


def test_a_slice_within_training_gives_metrics(tmp_path: Path, executor: Executor) -> None:
    from azr_mlx.evaluation.run import evaluate_slice

    bench = str(write_bench(tmp_path, "humaneval"))
    policy = Parrot({"area": "\n    return math.pi * radius ** 2\n\ndef more():", "four_times": "\n    return ..."})
    found = evaluate_slice(policy, executor, bench, 2)
    assert found == {f"bench/{bench}": 0.5, f"bench/{bench}/truncated": 0.5}
    assert evaluate_slice(policy, executor, bench, 1)[f"bench/{bench}"] == 1.0
    evaluate_slice(policy, executor, bench, 1, model="Some-Instruct")
    assert policy.asked[-1].startswith("user: Solve: import math")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mlx")
    from tests.model.conftest import build_model

    return build_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Forty problems, so that there is something to interrupt."""
    rows = [{**HUMANEVAL[i % 2], "task_id": f"Own/{i}"} for i in range(40)]
    return write_bench(tmp_path, "humaneval", rows_given=rows)


def test_other_rows_do_not_get_the_name_of_the_release(tmp_path: Path) -> None:
    source = {"url": "nowhere", "licence": "MIT", "revision": "v2", "file": str(tmp_path / "humaneval.jsonl")}
    (tmp_path / "c.jsonl").write_text('{"task_id": "Own/0", "completion": "    return 0"}\n')
    titles = []
    for content in ("", "another sha256"):
        bench = write_bench(tmp_path, "humaneval", source=source, content=content)
        said = call("--bench", bench, "--completions", tmp_path / "c.jsonl", "--partial", "--logs", tmp_path, "--json")
        titles.append(json.loads(said.stdout)[0]["revision"])
    assert titles == ["v2", "(other rows)"]


def test_an_adapter_that_names_no_model_is_not_scored_on_another(tmp_path: Path) -> None:
    described = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": {"rank": 2, "scale": 1.0}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(described))
    (tmp_path / "adapters.safetensors").touch()
    with pytest.raises(UsageError, match=r"does not say which model the adapter is of: name it with --model"):
        load_policy(EvalOptions(choices=(), adapter=tmp_path), tmp_path)


def test_base_and_adapter_are_evaluated_by_one_command(tmp_path: Path, model: Path) -> None:
    from azr_mlx import config
    from azr_mlx.model.policy import Policy

    policy = Policy.load(
        config.ModelConfig(id=str(model), style="compact"),
        config.LoraConfig(rank=4),
        config.OptimConfig(),
        config.SamplingConfig(),
        config.LossConfig(),
    )
    policy.save_adapter(tmp_path / "adapter")
    bench = write_bench(tmp_path, "humaneval")
    said = call("--bench", bench, "--adapter", tmp_path / "adapter", "--compare", "--logs", tmp_path / "logs", "--json")
    assert said.exit_code == 0, said.output
    base, adapted = json.loads(said.stdout)
    assert base["model"] == adapted["model"] == str(model)  # taken from the adapter's own description
    assert (base["adapter_hash"], len(adapted["adapter_hash"])) == ("", 64)
    assert base["prompt"] == adapted["prompt"] == "base"
    assert adapted["compared"]["p"] == 1.0
    assert base["samples_file"] != adapted["samples_file"]
    assert base["tokens"] > 0


def test_samples_at_a_temperature_give_pass_at_k(tmp_path: Path, model: Path) -> None:
    bench = write_bench(tmp_path, "humaneval")
    words = ["--bench", bench, "--model", model, "--samples", 5, "--temperature", 0.8, "--logs", tmp_path, "--json"]
    (record,) = json.loads(call(*words).stdout)
    assert set(record["scores"]) == {"pass@1", "pass@5"}
    texts = [json.loads(line)["text"] for line in Path(record["samples_file"]).read_text().splitlines()]
    assert len(texts) == 10
    assert len(set(texts)) > 5  # samples of one problem differ


@pytest.mark.parametrize("sampling", [[], ["--samples", "2", "--temperature", "0.9", "--top-p", "0.95"]])
def test_a_killed_evaluation_goes_on_and_ends_as_if_nothing_had_happened(
    tmp_path: Path, model: Path, many: Path, sampling: list[str]
) -> None:
    def words(output: str) -> list[str]:
        said = ["--bench", many, "--model", model, "--logs", tmp_path, "--tokens", 40, "--rows", 4, "--json"]
        return [*map(str, said), *sampling, "--output", str(tmp_path / output)]

    def record(output: str) -> dict:
        said = call(*words(output))
        assert said.exit_code == 0, said.output
        return json.loads(said.stdout)[0]

    def samples(output: str) -> list[dict]:
        return [
            json.loads(line)
            for line in (tmp_path / output).read_bytes().splitlines(keepends=True)
            if line[-1:] == b"\n"
        ]

    whole = record("whole.jsonl")
    killed = 0
    for wanted in (6, 20):
        command = [sys.executable, "-m", "azr_mlx", "eval", *words("killed.jsonl")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < end:
            if (tmp_path / "killed.jsonl").exists() and len(samples("killed.jsonl")) >= wanted:
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
                break
            time.sleep(0.005)
        process.wait(60)
    assert killed == 2
    resumed = record("killed.jsonl")
    assert resumed["reused_samples"] >= 20
    counts = Counter((one["task_id"], one["sample"]) for one in samples("killed.jsonl"))
    assert set(counts.values()) == {1}, "no sample is written twice"

    def told(output: str) -> dict:
        return {(one["task_id"], one["sample"]): one for one in samples(output)}

    assert told("killed.jsonl") == told("whole.jsonl")
    assert resumed["scores"] == whole["scores"]
    assert resumed["tokens"] == whole["tokens"]
