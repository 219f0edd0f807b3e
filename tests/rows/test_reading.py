"""Rows of every kind of file; what is no row is counted and never the end of a run."""

from __future__ import annotations

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_mlx.errors import UsageError
from azr_mlx.rows.reading import Row, read, split

ROWS = [{"prompt": "1 + 1", "answer": "2"}, {"prompt": "2 + 2", "answer": "4"}]


def write(path, rows):
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["prompt", "answer"])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        from pyarrow import Table, parquet

        parquet.write_table(Table.from_pylist(rows), path)
    else:
        text = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
        path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet"])
def test_every_kind_of_file_holds_the_same_rows(tmp_path, name):
    table = read(write(tmp_path / name, ROWS))
    assert [(row.prompt, row.columns) for row in table.rows] == [("1 + 1", {"answer": "2"}), ("2 + 2", {"answer": "4"})]
    assert table.complaints() == []


def test_a_bad_row_is_counted_by_its_fault_and_named_by_its_number(tmp_path):
    path = tmp_path / "rows.jsonl"
    bad = ["{half", "[1]", json.dumps({"answer": "2"}), json.dumps({"prompt": 7}), json.dumps({"prompt": ""})]
    path.write_text("\n".join([json.dumps(ROWS[0]), *bad, json.dumps({"prompt": [{"role": "user"}]})]) + "\n")
    table = read(str(path))
    assert [row.number for row in table.rows] == [1]
    assert table.refused == {"no JSON object": 2, "no prompt": 2, "prompt is neither text nor a list of messages": 2}
    assert table.first_refused == {
        "no JSON object": 2, "no prompt": 4, "prompt is neither text nor a list of messages": 5,
    }  # fmt: skip
    assert "2 of 7 rows are left out: no prompt (first: row 4)" in " ".join(table.complaints())


def test_messages_are_a_prompt_and_are_answered_by_a_message(tmp_path):
    messages = [{"role": "user", "content": "1 + 1?"}]
    (row,) = read(write(tmp_path / "rows.json", [{"prompt": messages}])).rows
    assert row.prompt == messages
    assert row.completion("2") == [{"role": "assistant", "content": "2"}]


def test_another_column_may_hold_the_prompt(tmp_path):
    (row,) = read(write(tmp_path / "rows.json", [{"question": "why?", "prompt": "no"}]), prompt="question").rows
    assert (row.prompt, row.columns) == ("why?", {"prompt": "no"})


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("rows.jsonl", "", "it is empty"),
        ("rows.jsonl", '{"question": 1}\n', "no prompt 1"),
        ("rows.json", "{", "cannot be read"),
        ("rows.txt", "1 + 1", "of no kind that is read"),
    ],
)
def test_what_holds_no_row_is_one_line(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=words):
        read(str(tmp_path / name))
    with pytest.raises(UsageError, match="there is no file"):
        read(str(tmp_path / "other.jsonl"))


@given(st.lists(st.text(min_size=1, max_size=3), max_size=40), st.floats(0, 0.9), st.integers(0, 10))
def test_the_split_holds_whole_prompts_out_and_loses_no_row(prompts, share, most):
    rows = [Row(i, prompt, {}) for i, prompt in enumerate(prompts)]
    train, held_out = split(rows, share, most)
    assert sorted(row.number for row in [*train, *held_out]) == list(range(len(prompts)))
    assert not {row.prompt for row in train} & {row.prompt for row in held_out}
    assert len({row.prompt for row in held_out}) == min(most, round(share * len(set(prompts))))


@given(st.permutations([str(i) for i in range(12)]))
def test_the_split_does_not_depend_on_the_order_of_the_rows(order):
    held_out = split([Row(i, prompt, {}) for i, prompt in enumerate(order)], 0.3, 100)[1]
    usual = split([Row(i, str(i), {}) for i in range(12)], 0.3, 100)[1]
    assert [row.prompt for row in held_out] == [row.prompt for row in usual]
