"""What travels comes back equal to the bit, and what does not fit its item is refused by name."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_mlx.cluster import messages
from azr_mlx.model import work
from azr_mlx.model.held import Keep
from azr_mlx.model.loss import Objective, Sums
from azr_mlx.model.packing import Example
from azr_mlx.model.sampler import Finished, Request
from azr_mlx.types import Stop

END = 9
WRITING = work.WritingItem(
    (1, 2), (Request((1, 2), (0, 0), 3), Request((1, 2), (0, 1), 3), Request((5,), (7, 0), 2, ("```",))),
    stop=("\n\n",), temperature=0.7, max_rows=3, kv_bytes=10, tile=2,
)  # fmt: skip
ROWS = (
    Finished((0, 0), (4, END), (-0.5, -0.25), Stop.EOS),
    Finished((7, 0), (1, 2), (-1.0, 0.0), Stop.LENGTH),
    Finished((0, 1), (3,), (-2.5,), Stop.TEXT),
)
FLOATS = np.array([-0.1, -0.2, -1e-30], np.float32)
EXAMPLES = tuple(Example((1, 2, i), (4, 5, 6), FLOATS, 0.1 * i, FLOATS * 2, None) for i in range(3))
GRADIENT = work.GradientItem(
    (work.MicroBatch(EXAMPLES[:1]), work.MicroBatch(EXAMPLES[1:], True, (2, 2), True)), Objective(kl=0.1), Keep.ALL
)
SHAPES = {"layer.lora_a": (2, 3), "layer.lora_b": (3, 1)}
SUMS = Sums(9, -1.5, 0.1, 0.0, 1e-7, 2e-7, 0.0, 1.0, 0.0)


def travelled(item):
    return messages.read_item(*messages.unpack(messages.pack(*messages.item_message(item))))


def answered(item, result):
    return messages.unpack(messages.pack(*messages.result_message(item, result)))


def read_rows(values, arrays):
    return messages.read_rows(WRITING, values, arrays, vocabulary=10, stop_tokens=frozenset([END]))


def same_examples(one, other):
    return all(
        (a.prompt, a.completion, a.advantage) == (b.prompt, b.completion, b.advantage)
        and np.array_equal(a.sampler, b.sampler)
        and (a.old is None) == (b.old is None)
        and (a.old is None or np.array_equal(a.old, b.old))
        for a, b in zip(one.rows, other.rows, strict=True)
    )


@given(st.dictionaries(st.text(max_size=5), st.lists(st.floats(width=32), max_size=9), max_size=4), st.integers())
def test_values_and_arrays_come_back_to_the_bit(arrays, number) -> None:
    given_ = {name: np.array(values, np.float32) for name, values in arrays.items()}
    values, back = messages.unpack(messages.pack({"n": number}, given_))
    assert values == {"n": number}
    assert {n: v.tobytes() for n, v in back.items()} == {n: v.tobytes() for n, v in given_.items()}


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_one_value_error(data) -> None:
    with contextlib.suppress(ValueError):
        values, arrays = messages.unpack(data)
        assert isinstance(values, dict)
        assert isinstance(arrays, dict)


@pytest.mark.parametrize("table", [
    [["a", "f4", [2]]], [["a", "f8", [1]]], [["a", "f4", [-1]]], [["a", "f4", [2**40]]], [[1, "f4", [1]]], [["a"]],
    [["a", "f4", [1]], ["a", "f4", [0]]], "x", [["a", "f4", [True]]], [["a", "O", [1]]],
])  # fmt: skip
def test_a_header_that_lies_about_its_arrays_is_refused(table) -> None:
    header = json.dumps({"values": {}, "arrays": table}).encode()
    with pytest.raises(ValueError):
        messages.unpack(len(header).to_bytes(4, "little") + header + bytes(4))


def test_items_come_back_equal() -> None:
    assert travelled(WRITING) == WRITING
    back = travelled(GRADIENT)
    assert (back.objective, back.keep) == (GRADIENT.objective, GRADIENT.keep)
    assert [(one.shared, one.prefixes, one.apart) for one in back.micro_batches] == [
        (False, (), False),
        (True, (2, 2), True),
    ]
    assert all(same_examples(a, b) for a, b in zip(back.micro_batches, GRADIENT.micro_batches, strict=True))
    scored = travelled(work.LogprobItem(GRADIENT.micro_batches[1], reference=True))
    assert scored.reference
    assert same_examples(scored.micro_batch, GRADIENT.micro_batches[1])


def test_results_come_back_equal() -> None:
    assert read_rows(*answered(WRITING, ROWS)) == ROWS
    gradients = {name: mx.random.normal(shape) for name, shape in SHAPES.items()}
    back, sums = messages.read_gradient(GRADIENT, *answered(GRADIENT, (gradients, SUMS)), SHAPES)
    assert sums == SUMS
    assert all(np.array_equal(back[name], np.array(gradients[name])) for name in SHAPES)
    item = work.LogprobItem(GRADIENT.micro_batches[1])
    back = messages.read_logprobs(item, answered(item, (FLOATS, FLOATS * 3))[1])
    assert [part.tolist() for part in back] == [FLOATS.tolist(), (FLOATS * 3).tolist()]


@pytest.mark.parametrize(("rows", "words"), [
    (ROWS[:2], "not the 3 of the item"),
    ((*ROWS, ROWS[0]), "not the 3 of the item"),
    ((replace(ROWS[0], key=(0, 5)), *ROWS[1:]), "not the 3 of the item"),
    ((replace(ROWS[0], tokens=(10, END)), *ROWS[1:]), "vocabulary"),
    ((replace(ROWS[0], tokens=(-1, END)), *ROWS[1:]), "vocabulary"),
    ((replace(ROWS[0], tokens=(END, END)), *ROWS[1:]), "end token"),
    ((replace(ROWS[0], tokens=(4, 5)), *ROWS[1:]), "end token"),
    ((replace(ROWS[0], logprobs=(0.5, -1.0)), *ROWS[1:]), "log-probability"),
    ((replace(ROWS[0], logprobs=(float("nan"), -1.0)), *ROWS[1:]), "log-probability"),
    ((replace(ROWS[0], logprobs=(-float("inf"), -1.0)), *ROWS[1:]), "log-probability"),
    ((*ROWS[:2], Finished((0, 1), (), (), Stop.TEXT)), "0 tokens"),
    ((*ROWS[:2], Finished((0, 1), (1,) * 4, (-1.0,) * 4, Stop.TEXT)), "4 tokens"),
    ((*ROWS[:2], replace(ROWS[2], stop=Stop.LENGTH)), "below its limit"),
])  # fmt: skip
def test_rows_that_do_not_answer_their_item_are_refused(rows, words) -> None:
    with pytest.raises(ValueError, match=words):
        read_rows(*answered(WRITING, rows))


@pytest.mark.parametrize(("change", "words"), [
    ({"layer.lora_a": np.zeros((3, 2), np.float32)}, "shape"),
    ({"layer.lora_a": np.zeros((2, 3), np.int32)}, "int32"),
    ({"layer.lora_a": np.full((2, 3), np.nan, np.float32)}, "not finite"),
    ({"other": np.zeros(1, np.float32)}, "layout"),
])  # fmt: skip
def test_gradients_of_another_form_are_refused(change, words) -> None:
    values, arrays = answered(GRADIENT, ({name: mx.zeros(shape) for name, shape in SHAPES.items()}, SUMS))
    with pytest.raises(ValueError, match=words):
        messages.read_gradient(GRADIENT, values, arrays | change, SHAPES)


def test_a_gradient_over_other_tokens_is_refused() -> None:
    values, arrays = answered(GRADIENT, ({name: mx.zeros(shape) for name, shape in SHAPES.items()}, SUMS))
    values["sums"]["tokens"] = 8
    with pytest.raises(ValueError, match="8 tokens, where the item has 9"):
        messages.read_gradient(GRADIENT, values, arrays, SHAPES)


SCALARS = st.none() | st.integers() | st.floats() | st.text(max_size=4)
WORDS = st.sampled_from(["rows", "seed", "lengths", "stop", "batches", "advantages", "objective"])
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4), max_leaves=12
)


@given(st.dictionaries(WORDS, JSON, max_size=7), st.sampled_from(["write", "gradient", "logprob", "other"]))
def test_any_json_in_place_of_an_item_is_one_value_error(values, kind) -> None:
    with pytest.raises(ValueError):
        messages.read_item(
            {**values, "kind": kind}, {"prompts": np.zeros(2, np.int32), "tokens": np.zeros(0, np.int32)}
        )
