"""What travels: JSON and arrays of numbers. Nothing that arrives is unpickled, evaluated or formatted as code.

A message is a header in JSON, which names its arrays with type and shape, followed by their bytes. Whatever is read is
checked: by `unpack` for its form, by the functions below it for its meaning. A result is checked against the item it
answers: who sends something else (another row, a token outside the vocabulary, a gradient of another shape) is told
what is wrong, and the item is computed by somebody else. Every function that reads raises ValueError, one line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from azr_mlx.model import work
from azr_mlx.model.held import Keep
from azr_mlx.model.loss import Objective, Sums
from azr_mlx.model.packing import Example
from azr_mlx.model.sampler import Finished, Request
from azr_mlx.types import Stop

Arrays = Mapping[str, np.ndarray]
Item = work.WritingItem | work.GradientItem | work.LogprobItem

LARGEST_HEADER = 32 << 20  # bytes
MOST_ARRAYS = 100_000
TYPES = {"i4": np.dtype("<i4"), "f4": np.dtype("<f4")}
NAMES = {np.dtype(np.int32): "i4", np.dtype(np.float32): "f4"}
ROUNDING = 1e-3  # a logarithm of a probability may exceed 0 by it


def pack(values: Mapping[str, Any], arrays: Arrays | None = None) -> bytes:
    """A message of JSON values and int32 or float32 arrays."""
    arrays = arrays or {}
    table = [[name, NAMES[array.dtype], list(array.shape)] for name, array in arrays.items()]
    header = json.dumps({"values": values, "arrays": table}, separators=(",", ":")).encode()
    parts = [np.ascontiguousarray(array).astype(TYPES[NAMES[array.dtype]], copy=False) for array in arrays.values()]
    return b"".join([len(header).to_bytes(4, "little"), header, *(part.tobytes() for part in parts)])


def unpack(message: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Values and arrays of a message; every size is checked before anything is made of it."""
    size = int.from_bytes(message[:4], "little")
    if len(message) < 4 or size > min(LARGEST_HEADER, len(message) - 4):
        raise ValueError("the message is cut off")
    try:
        header = json.loads(message[4 : 4 + size])
        values, table = header["values"], header["arrays"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("the header of the message is not the JSON it should be") from None
    if not isinstance(values, dict) or not isinstance(table, list) or len(table) > MOST_ARRAYS:
        raise ValueError("the header of the message has another form")
    arrays: dict[str, np.ndarray] = {}
    start = 4 + size
    for row in table:
        try:
            name, kind, shape = row
            dtype, shape = TYPES[kind], tuple(shape)
            whole = isinstance(name, str) and all(type(n) is int and 0 <= n < 2**31 for n in shape)
        except (ValueError, KeyError, TypeError):
            raise ValueError("an array of the message has no name, type or shape") from None
        length = math.prod(shape) * dtype.itemsize
        if not whole or len(shape) > 8 or start + length > len(message) or name in arrays:
            raise ValueError("the arrays of the message do not fit it")
        arrays[name] = np.frombuffer(message, dtype, math.prod(shape), start).reshape(shape)
        start += length
    if start != len(message):
        raise ValueError("the message is longer than its arrays")
    return values, arrays


# Items ----------------------------------------------------------------------------------------------------------


def item_message(item: Item) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """An item as values and arrays."""
    if isinstance(item, work.WritingItem):
        prompts = list(dict.fromkeys(request.prompt for request in item.requests))
        place = {prompt: i for i, prompt in enumerate(prompts)}
        rows = [
            [place[request.prompt], list(request.key), request.max_tokens, list(request.stop)]
            for request in item.requests
        ]
        settings = {
            name: getattr(item, name)
            for name in ("seed", "stop", "temperature", "top_p", "max_rows", "kv_bytes", "tile")
        }
        values = {"kind": "write", **settings, "rows": rows, "lengths": [len(prompt) for prompt in prompts]}
        return values, {"prompts": _joined(prompts, np.int32)}
    if isinstance(item, work.LogprobItem):
        values, arrays = _examples([item.micro_batch])
        return {"kind": "logprob", "reference": item.reference, **values}, arrays
    values, arrays = _examples(item.micro_batches)
    return {"kind": "gradient", "objective": asdict(item.objective), "keep": item.keep, **values}, arrays


def _keep(said: Any) -> Keep | None:
    """What is kept of forward passes; None leaves it to the memory of whoever computes."""
    return None if said is None else Keep(said)


def read_item(values: Mapping[str, Any], arrays: Arrays) -> Item:
    """The item of a message."""
    try:
        if values["kind"] == "write":
            prompts = _split(arrays["prompts"], values["lengths"])
            return work.WritingItem(
                seed=tuple(map(_whole, values["seed"])),
                requests=tuple(
                    Request(prompts[i], tuple(map(_whole, key)), _whole(n), tuple(map(_text, stop)))
                    for i, key, n, stop in values["rows"]
                ),
                stop=tuple(map(_text, values["stop"])),
                temperature=_number(values["temperature"]),
                top_p=_number(values["top_p"]),
                max_rows=_whole(values["max_rows"]),
                kv_bytes=_whole(values["kv_bytes"]),
                tile=_whole(values["tile"]),
            )
        micro_batches = _read_examples(values, arrays)
        if values["kind"] == "logprob":
            return work.LogprobItem(micro_batches[0], bool(values["reference"]))
        if values["kind"] == "gradient":
            return work.GradientItem(micro_batches, Objective(**values["objective"]), _keep(values["keep"]))
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"the item has another form: {type(error).__name__} {error}") from None
    raise ValueError("the item is of a kind that this version does not know")


def cost(item: Item) -> float:
    """What an item takes about, in tokens, to compare items of one kind."""
    if isinstance(item, work.WritingItem):
        return float(sum(request.max_tokens for request in item.requests))
    batches = [item.micro_batch] if isinstance(item, work.LogprobItem) else item.micro_batches
    return float(sum(len(row) for one in batches for row in one.rows))


def _examples(micro_batches: Sequence[work.MicroBatch]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    rows = [row for one in micro_batches for row in one.rows]
    values = {
        "batches": [[len(one.rows), one.shared, list(one.prefixes), one.apart] for one in micro_batches],
        "lengths": [[len(row.prompt), len(row.completion)] for row in rows],
        "advantages": [row.advantage for row in rows],
    }
    arrays = {
        "tokens": _joined([row.prompt + row.completion for row in rows], np.int32),
        "sampler": _joined([row.sampler for row in rows], np.float32),
    }
    for name in ("old", "reference"):
        if rows and getattr(rows[0], name) is not None:
            arrays[name] = _joined([getattr(row, name) for row in rows], np.float32)
    return values, arrays


def _read_examples(values: Mapping[str, Any], arrays: Arrays) -> tuple[work.MicroBatch, ...]:
    lengths = values["lengths"]
    tokens = _split(arrays["tokens"], [p + k for p, k in lengths])
    columns: dict[str, Sequence[np.ndarray | None]] = {
        name: _cut(arrays[name], [k for _, k in lengths]) if name in arrays else [None] * len(lengths)
        for name in ("sampler", "old", "reference")
    }
    rows = []
    for i, ((p, _), advantage) in enumerate(zip(lengths, values["advantages"], strict=True)):
        sampler = columns["sampler"][i]
        if sampler is None:
            raise ValueError("a micro-batch has no log-probabilities")
        rows.append(
            Example(
                tokens[i][:p], tokens[i][p:], sampler, _number(advantage), columns["old"][i], columns["reference"][i]
            )
        )
    batches, start = [], 0
    for number, shared, prefixes, apart in values["batches"]:
        part = tuple(rows[start : start + _whole(number)])
        batches.append(work.MicroBatch(part, bool(shared), tuple(map(_whole, prefixes)), bool(apart)))
        start += number
    if start != len(rows) or any(not one.rows or len(one.prefixes) not in (0, len(one.rows)) for one in batches):
        raise ValueError("the micro-batches do not fit their rows")
    if any(not 0 <= n <= len(row.prompt) for one in batches for n, row in zip(one.prefixes, one.rows, strict=False)):
        raise ValueError("a beginning is longer than its prompt")
    return tuple(batches)


# Results --------------------------------------------------------------------------------------------------------


def result_message(item: Item, result: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `item.compute` returned as values and arrays."""
    if isinstance(item, work.WritingItem):
        rows: Sequence[Finished] = result
        values = {"rows": [[list(row.key), len(row.tokens), row.stop.value] for row in rows]}
        tokens = _joined([row.tokens for row in rows], np.int32)
        return values, {"tokens": tokens, "logprobs": _joined([row.logprobs for row in rows], np.float32)}
    if isinstance(item, work.LogprobItem):
        return {}, {"logprobs": _joined(result, np.float32)}
    gradients, sums = result
    return {"sums": asdict(sums)}, {name: np.array(value) for name, value in gradients.items()}


def read_rows(
    item: work.WritingItem, values: Mapping[str, Any], arrays: Arrays, *, vocabulary: int, stop_tokens: frozenset[int]
) -> tuple[Finished, ...]:
    """The rows of a writing item: each that was asked for, once, of tokens that exist, ended as it says."""
    limits = {request.key: request.max_tokens for request in item.requests}
    try:
        told = [(tuple(map(_whole, key)), _whole(length), Stop(stop)) for key, length, stop in values["rows"]]
        tokens, logprobs = arrays["tokens"], arrays["logprobs"]
        lengths = [length for _, length, _ in told]
        rows = [
            Finished(key, tuple(part.tolist()), tuple(chances.tolist()), stop)
            for (key, _, stop), part, chances in zip(
                told, _cut(_typed(tokens, np.int32), lengths), _cut(_typed(logprobs, np.float32), lengths), strict=True
            )
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"the rows have another form: {type(error).__name__}") from None
    if sorted(key for key, _, _ in told) != sorted(limits):
        raise ValueError(f"{len(told)} rows that are not the {len(limits)} of the item")
    if tokens.size and not (tokens.min() >= 0 and tokens.max() < vocabulary):
        raise ValueError(f"a token outside the vocabulary of {vocabulary}")
    _check_logprobs(logprobs)
    for row in rows:
        ends = [i for i, token in enumerate(row.tokens) if token in stop_tokens]
        if not 1 <= len(row.tokens) <= limits[row.key]:
            raise ValueError(f"a row of {len(row.tokens)} tokens, where 1 to {limits[row.key]} were asked for")
        if ends != ([len(row.tokens) - 1] if row.stop is Stop.EOS else []):
            raise ValueError("a row whose end token is not where it ends")
        if row.stop is Stop.LENGTH and len(row.tokens) != limits[row.key]:
            raise ValueError("a row that says it was cut off, below its limit")
    return tuple(rows)


def read_logprobs(item: work.LogprobItem, arrays: Arrays) -> tuple[np.ndarray, ...]:
    """The log-probabilities of each row of an item."""
    if arrays.keys() != {"logprobs"}:
        raise ValueError("log-probabilities are one array")
    _check_logprobs(_typed(arrays["logprobs"], np.float32))
    return tuple(_cut(arrays["logprobs"], [len(row.completion) for row in item.micro_batch.rows]))


def read_gradient(
    item: work.GradientItem, values: Mapping[str, Any], arrays: Arrays, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], Sums]:
    """The sums of a gradient item: a finite float32 array for each parameter, and as many tokens as the item has."""
    given = values.get("sums")
    if not isinstance(given, dict) or given.keys() != {f.name for f in fields(Sums)}:
        raise ValueError("the sums have other names")
    sums = Sums(_whole(given["tokens"]), *(_number(given[f.name]) for f in fields(Sums)[1:]))
    tokens = sum(len(row.completion) for one in item.micro_batches for row in one.rows)
    if sums.tokens != tokens:
        raise ValueError(f"sums over {sums.tokens} tokens, where the item has {tokens}")
    read_parameters(arrays, shapes)
    return dict(arrays), sums


def read_parameters(arrays: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    """Arrays that are finite and have the names and shapes of the adapters."""
    odd = sorted(arrays.keys() ^ shapes.keys())
    if odd:
        raise ValueError(f"adapters of another layout: {odd[0][:80]} is on one side only")
    for name, array in arrays.items():
        if _typed(array, np.float32).shape != shapes[name]:
            raise ValueError(f"{name} has the shape {array.shape}, not {shapes[name]}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds a number that is not finite")
    return arrays


def _check_logprobs(values: np.ndarray) -> None:
    if not np.isfinite(values).all() or (values.size and values.max() > ROUNDING):
        raise ValueError("a log-probability that is none")


def _joined(parts: Iterable[Any], dtype: Any) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *(np.asarray(part, dtype) for part in parts)])


def _cut(values: np.ndarray, lengths: Sequence[int]) -> list[np.ndarray]:
    if values.ndim != 1 or any(type(n) is not int or n < 0 for n in lengths) or sum(lengths) != len(values):
        raise ValueError("the lengths of the rows do not fit their values")
    return np.split(values, np.cumsum(lengths)[:-1]) if len(lengths) else []


def _split(values: np.ndarray, lengths: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(part.tolist()) for part in _cut(_typed(values, np.int32), lengths)]


def _typed(values: np.ndarray, dtype: Any) -> np.ndarray:
    if values.dtype != np.dtype(dtype):
        raise ValueError(f"an array of {values.dtype}, where {np.dtype(dtype)} belongs")
    return values


def _whole(value: Any) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**64:
        raise ValueError("a whole number was expected")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError("a number was expected")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 1000:
        raise ValueError("a short text was expected")
    return value
