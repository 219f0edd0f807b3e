"""Work items: what a step computes with the model, cut into parts that are the same whoever computes them.

The generation and the gradient of a step are lists of items, made from the rows alone. An item holds all that its
result depends on beside the weights: token ids, the keys of the draws, limits, and which rows pass the model together.
A list that is computed in one process, or shared out among several on equal machines, then has the same result to the
bit, as long as the results are joined in list order.

    wait = computer.submit(item)     # somebody may begin
    result = wait()                  # or it is computed now
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby
from typing import Protocol, TypeVar

import mlx.core as mx
import numpy as np

from azr_mlx.model import loss as losses
from azr_mlx.model import sampler
from azr_mlx.model.backbone import Backbone
from azr_mlx.model.held import Keep
from azr_mlx.model.packing import Batch, Example, Pack
from azr_mlx.model.trunk import Gradients

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Model(Protocol):
    """What items need of a policy: its weights as they learn and as they sample, and where a completion ends."""

    backbone: Backbone
    stop_tokens: frozenset[int]

    def acting(self) -> Backbone:
        """The model that samples."""
        ...

    def prefixes(self) -> sampler.Prefixes:
        """Prefixes of prompts, remembered while the weights are the same."""
        ...

    def stop_text(self, texts: tuple[str, ...]) -> Callable[[Sequence[int]], bool] | None:
        """Whether a row's last token completed one of these texts; None without texts."""
        ...

    def reference(self) -> AbstractContextManager[None]:
        """Within it the adapters are off."""
        ...

    def holding(self, batch: Batch, told: Keep | None) -> AbstractContextManager[Keep]:
        """What to keep of the forward pass of a micro-batch that is computed within it: as told, or what fits."""
        ...


class WorkItem(Protocol[Result_co]):
    """A part of a step's work."""

    def compute(self, model: Model) -> Result_co: ...


class Computer(Protocol):
    """Who computes items: this process, or several machines."""

    def submit(self, item: WorkItem[Result]) -> Callable[[], Result]:
        """Hand in an item. The function that comes back waits for its result, and is called once."""
        ...


@dataclass(frozen=True)
class Here:
    """Computes items in this process, each when its result is asked for."""

    model: Model

    def submit(self, item: WorkItem[Result]) -> Callable[[], Result]:
        return partial(item.compute, self.model)


# Generation -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WritingItem:
    """Completions that one decoder writes from beginning to end. Result: the rows, in the order in which they ended."""

    seed: tuple[int, ...]
    requests: tuple[sampler.Request, ...] = ()
    stop: tuple[str, ...] = ()
    temperature: float = 1.0
    top_p: float = 1.0
    max_rows: int = 64
    kv_bytes: int = 0
    tile: int = 1

    def decoder(self, model: Model, count: sampler.Count | None = None) -> sampler.Decoder:
        """A decoder with the present weights and these settings; it has got the requests."""
        decoder = sampler.Decoder(
            model.acting(), seed=self.seed, max_rows=self.max_rows, kv_bytes=self.kv_bytes,
            stop_tokens=model.stop_tokens, stop_text=model.stop_text(self.stop), stop_texts=model.stop_text,
            temperature=self.temperature, top_p=self.top_p, count=count, prefixes=model.prefixes(), tile=self.tile,
        )  # fmt: skip
        decoder.add(self.requests)
        return decoder

    def compute(self, model: Model) -> tuple[sampler.Finished, ...]:
        decoder = self.decoder(model)
        rows: list[sampler.Finished] = []
        while decoder.busy:
            rows += decoder.step()
        return tuple(rows)


class ItemWriter:
    """Writes requests as items of about `rows` rows, each by itself, and hands their rows on in the order of the items.

    It takes the place of a `sampler.Decoder`. Which rows share an item depends on nothing but the order of `add` and
    `step`: an item is closed when it is full, and the last one when all before it have been handed on.
    """

    def __init__(self, computer: Computer, settings: WritingItem, rows: int) -> None:
        self.computer = computer
        self.settings = settings
        self.rows = rows
        self.open: list[sampler.Request] = []
        self.under_way: deque[Callable[[], tuple[sampler.Finished, ...]]] = deque()

    @property
    def busy(self) -> bool:
        return bool(self.open or self.under_way)

    def add(self, requests: Iterable[sampler.Request]) -> None:
        """Queue requests. Those of one prompt stay together where an item holds them: it is prefilled once."""
        for _, group in groupby(requests, key=lambda request: request.prompt):
            same = list(group)
            if len(self.open) + len(same) > self.rows:
                self._close()
            for start in range(0, len(same), self.rows):
                self.open += same[start : start + self.rows]
                if len(self.open) >= self.rows:
                    self._close()

    def step(self) -> list[sampler.Finished]:
        """The rows of the next item."""
        if not self.under_way:
            self._close()
        return list(self.under_way.popleft()())

    def _close(self) -> None:
        if self.open:
            self.under_way.append(self.computer.submit(replace(self.settings, requests=tuple(self.open))))
            self.open = []


# Learning -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MicroBatch:
    """Rows that pass the model together, and how: a pack (packing.Pack) with the rows themselves."""

    rows: tuple[Example, ...]
    shared: bool = False
    prefixes: tuple[int, ...] = ()
    apart: bool = False

    @classmethod
    def of(cls, rows: Sequence[Example], pack: Pack) -> MicroBatch:
        return cls(tuple(rows[i] for i in pack.rows), pack.shared, pack.prefixes, pack.apart)

    @cached_property
    def batch(self) -> Batch:
        """The rows as arrays."""
        return Batch.of(self.rows, Pack(tuple(range(len(self.rows))), self.shared, self.prefixes, self.apart))


@dataclass(frozen=True, slots=True)
class GradientItem:
    """Micro-batches whose gradients are added in list order.

    Result: float32 sums of the gradient of the SUM of token losses, by parameter, and what was measured on the way.
    """

    micro_batches: tuple[MicroBatch, ...]
    objective: losses.Objective
    keep: Keep | None = None  # of the forward pass (loss.gradient); None: whoever computes it knows its memory

    def compute(self, model: Model) -> tuple[Gradients, losses.Sums]:
        return joined(self._gradient(model, one.batch) for one in self.micro_batches)

    def _gradient(self, model: Model, batch: Batch) -> tuple[Gradients, losses.Sums]:
        with model.holding(batch, self.keep) as keep:
            return losses.gradient(model.backbone, batch, self.objective, keep)


@dataclass(frozen=True, slots=True)
class LogprobItem:
    """The trainer's log-probabilities of a micro-batch, or the reference's. Result: float32 (K,) of each row."""

    micro_batch: MicroBatch
    reference: bool = False

    def compute(self, model: Model) -> tuple[np.ndarray, ...]:
        with model.reference() if self.reference else nullcontext():
            values = np.array(losses.logprobs(model.backbone, self.micro_batch.batch))
        ends = np.cumsum([len(row.completion) for row in self.micro_batch.rows])
        return tuple(np.split(values, ends[:-1]))


def joined(parts: Iterable[tuple[Gradients, losses.Sums]]) -> tuple[Gradients, losses.Sums]:
    """Sum of gradients, in float32, and of what was measured, in the order of `parts`; empty without parts."""
    total: Gradients = {}
    sums = losses.Sums()
    for gradients, measured in parts:
        part = {name: g.astype(mx.float32) for name, g in gradients.items()}
        total = {name: total[name] + g for name, g in part.items()} if total else part
        mx.eval(total)
        sums = sums + measured
    return total, sums


def gradient_items(
    micro_batches: Sequence[MicroBatch], objective: losses.Objective, *, keep: Keep | None = None, items: int = 0
) -> list[GradientItem]:
    """Micro-batches, in their order, as at most `items` items of consecutive ones (0: one item each)."""
    number = min(items or len(micro_batches), len(micro_batches))
    return [GradientItem(part, objective, keep) for part in _runs(micro_batches, number)]


def _runs(values: Sequence[MicroBatch], number: int) -> Iterator[tuple[MicroBatch, ...]]:
    for i in range(number):
        yield tuple(values[i * len(values) // number : (i + 1) * len(values) // number])
