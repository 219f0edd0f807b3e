"""The coordinator: hands items out to workers, checks what comes back, computes items itself while it waits.

It takes the place of `work.Here` in a policy. The results are handed on in list order, so the run is the same whoever
computed them; and since everything that does not come in time is computed here, no wait depends on a worker.
Its threads answer calls; MLX is used by the thread of the run alone.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import mlx.core as mx
import numpy as np

from azr_mlx import config
from azr_mlx.cluster import description, messages
from azr_mlx.cluster.item_list import ItemList
from azr_mlx.model import work
from azr_mlx.model.packing import Example
from azr_mlx.model.policy import Policy

HERE = "coordinator"
POLL_SECONDS = 10.0  # how long a call for an item waits for one
LOST_SECONDS = 10.0  # a worker that is not heard of for so long gets no more items, and its own are given out again
REFUSALS = 3  # results in a row that are refused before a worker is sent away
MOST_WORKERS = 64
GAP_TOKENS = 400  # completion tokens of each worker a step whose log-probabilities are computed here to compare

Result = TypeVar("Result")
Say = Callable[[str], None]


@dataclass
class WorkerState:
    """A worker that was admitted, and what it has done in the step at hand."""

    name: str
    identity: str
    heard: float
    notes: list[str] = field(default_factory=list)  # how it is unlike the coordinator
    lost: bool = False
    refused: int = 0  # results in a row
    sent_away: str = ""
    rows: int = 0
    seconds: float = 0.0  # of computing
    sample: list[Example] = field(default_factory=list)  # rows that it wrote, to compare
    gap: float | None = None  # mean |log-probability of the trainer here - of the worker's sampler| of a token


@dataclass
class _Submitted:
    item: messages.Item
    weights: str
    message: bytes | None = None
    result: Any = None
    done: bool = False


class Coordinator:
    """A `work.Computer` whose items several machines compute. `handlers` answer the workers' calls."""

    def __init__(
        self, policy: Policy, settings: config.Config, say: Say, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.policy = policy
        self.say = say
        self.clock = clock
        self.run = secrets.token_hex(4)  # a worker of an earlier process does not know this one
        self.description = description.describe(policy)
        self.run_text = description.run_text(settings)
        self.shapes = {name: tuple(value.shape) for name, value in policy.adapter().items()}
        self.vocabulary = policy.backbone.vocabulary
        self.items = ItemList(clock)
        self.machines: dict[str, WorkerState] = {}
        self.own = WorkerState(HERE, HERE, clock())
        self.bytes_in = self.bytes_out = 0
        self._submitted: dict[int, _Submitted] = {}
        self._number = 0
        self._weights = ""  # names the adapters as they are now
        self._adapter: bytes = b""
        self._version = -1
        self._changed = threading.Condition()
        self._closed = ""
        self._greeted = 0
        self._since = clock()
        self._said: list[str] = []
        self.handlers: Mapping[str, Callable[[bytes], bytes]] = {
            name: self._counted(handler)
            for name, handler in {
                "Hello": self._hello, "Join": self._join, "Next": self._next, "Weights": self._give_weights,
                "Done": self._done, "Beat": self._beat, "Leave": self._leave,
            }.items()
        }  # fmt: skip

    # The run's thread -------------------------------------------------------------------------------------------

    def submit(self, item: work.WorkItem[Result]) -> Callable[[], Result]:
        """Put an item at the end of the list; a worker may begin it now. The returned function waits for its result."""
        one = cast("messages.Item", item)
        self._snapshot()
        with self._changed:
            self._number += 1
            number = self._number
            self._submitted[number] = _Submitted(one, self._weights)
            self.items.add(number, type(one).__name__, messages.cost(one))
            self._changed.notify_all()
        return lambda: cast("Result", self._wait(number))

    def _snapshot(self) -> None:
        """Keep the adapters as bytes, once for each time they change; items of other weights are over."""
        if self._version == self.policy.weights_version:
            return
        self._version = self.policy.weights_version
        arrays = {name: np.array(value.astype(mx.float32)) for name, value in self.policy.adapter().items()}
        with self._changed:
            self._weights = f"{self.run}-{self._version}"
            self._adapter = messages.pack({"weights": self._weights}, arrays)
            self._submitted.clear()
            self.items.clear()

    def _wait(self, number: int) -> Any:
        """The result of an item. Meanwhile items are computed here, as long as there are any to compute."""
        self._measure_gaps()
        while True:
            self._tell()
            with self._changed:
                self._look_for_lost()
                one = self._submitted[number]
                if one.done:
                    del self._submitted[number]
                    self.items.forget(number)
                    return one.result if not isinstance(one.item, work.GradientItem) else _to_mlx(one.result)
                mine = self.items.take(HERE)
                if mine is None:
                    self._changed.wait(0.2)  # then somebody may be late
                    continue
                item = self._submitted[mine].item
            began = self.clock()
            try:
                result = cast("work.WorkItem[Any]", item).compute(self.policy)
            except BaseException:
                with self._changed:
                    self.items.give_back(HERE, mine)
                raise
            with self._changed:
                self._count(self.own, item, self.clock() - began)
                if self.items.finish(mine, HERE):
                    self._submitted[mine].result, self._submitted[mine].done = result, True

    def _measure_gaps(self) -> None:
        """Compare what workers said of their rows with the trainer's log-probabilities here (before an update)."""
        with self._changed:
            due = [machine for machine in self.machines.values() if machine.sample]
            samples = [(machine, machine.sample) for machine in due]
            gradient = any(isinstance(one.item, work.GradientItem) for one in self._submitted.values())
            if not gradient:
                return
            for machine in due:
                machine.sample = []
        for machine, rows in samples:
            parts = work.LogprobItem(work.MicroBatch(tuple(rows))).compute(self.policy)
            own, theirs = np.concatenate(parts), np.concatenate([row.sampler for row in rows])
            machine.gap = float(np.abs(own - theirs).mean())

    def lines(self) -> list[str]:
        """A line for each machine since this was asked last: its share of the work, its speed, how it stands."""
        with self._changed:
            everybody = [self.own, *self.machines.values()]
            total = sum(machine.seconds for machine in everybody) or 1.0
            now = self.clock()
            passed, self._since = max(now - self._since, 1e-9), now
            lines = [_line(machine, machine.seconds / total, passed, now) for machine in everybody]
            lines[0] += f"  received {self.bytes_in / 1e6:.2f} MB, sent {self.bytes_out / 1e6:.2f} MB"
            self.bytes_in = self.bytes_out = 0
            for machine in everybody:
                machine.rows, machine.seconds = 0, 0.0
        return lines

    def close(self, why: str = "the run is over") -> None:
        """Send all workers home with the words `why`; answers no more items."""
        with self._changed:
            self._closed = why
            self._changed.notify_all()

    def _tell(self) -> None:
        with self._changed:
            said, self._said = self._said, []
        for line in said:
            self.say(line)

    # Calls, each in a thread of its own -------------------------------------------------------------------------

    def _counted(self, handler: Callable[[dict[str, Any], dict[str, np.ndarray]], bytes]) -> Callable[[bytes], bytes]:
        def call(message: bytes) -> bytes:
            answer = handler(*messages.unpack(message))
            with self._changed:
                self.bytes_in, self.bytes_out = self.bytes_in + len(message), self.bytes_out + len(answer)
            return answer

        return call

    def _hello(self, values: dict[str, Any], _: Any) -> bytes:
        """A worker introduces itself by its versions, before it loads a model."""
        odd = description.differences(self.description, _words(values.get("versions")), ("azr_mlx", "mlx", "mlx-lm"))
        if odd:
            self._note(f"refused worker {_name(values)}: {'; '.join(odd)}")
            return messages.pack({"refused": "; ".join(odd)})
        return messages.pack({"run": self.run, "config": self.run_text})

    def _join(self, values: dict[str, Any], _: Any) -> bytes:
        """A worker has loaded its model: it is admitted when it would compute the same."""
        theirs, name = _words(values.get("description")), _name(values)
        odd = description.differences(self.description, theirs, description.SAME)
        if odd:
            self._note(f"refused worker {name}: {'; '.join(odd)}")
            return messages.pack({"refused": "; ".join(odd)})
        notes = description.differences(self.description, theirs, description.ALIKE)
        with self._changed:
            there = [m for m in self.machines.values() if not m.lost and not m.sent_away]
            if len(there) >= MOST_WORKERS:
                return messages.pack({"refused": f"there are {MOST_WORKERS} workers already"})
            taken = {machine.name for machine in there}
            for identity in [i for i, m in self.machines.items() if m.name == name and m.name not in taken]:
                del self.machines[identity]  # it was lost, and has come back
            self._greeted += 1
            machine = WorkerState(name if name not in taken else f"{name}-{self._greeted}", secrets.token_hex(8), 0.0)
            machine.heard, machine.notes = self.clock(), notes
            self.machines[machine.identity] = machine
        alike = f" (equal up to rounding: {'; '.join(notes)})" if notes else ""
        self._note(f"worker {machine.name} has joined{alike}")
        return messages.pack({"worker": machine.identity, "name": machine.name})

    def _next(self, values: dict[str, Any], _: Any) -> bytes:
        """The next item for a worker; nothing when none has come for some seconds."""
        until = self.clock() + POLL_SECONDS
        with self._changed:
            while True:
                machine = self._known(values)
                if machine is None:
                    return messages.pack({"unknown": True})
                if self._closed or machine.sent_away:
                    return messages.pack({"end": self._closed or machine.sent_away})
                number = self.items.take(machine.identity)
                if number is not None:
                    break
                left = until - self.clock()
                if left <= 0:
                    return messages.pack({})
                self._changed.wait(min(left, 0.5))
            one = self._submitted[number]
        if one.message is None:  # two threads may both make it: they make the same
            described, arrays = messages.item_message(one.item)
            one.message = messages.pack({"number": number, "weights": one.weights, "item": described}, arrays)
        return one.message

    def _give_weights(self, values: dict[str, Any], _: Any) -> bytes:
        """The adapters by name; nothing when they have changed meanwhile."""
        with self._changed:
            return self._adapter if values.get("weights") == self._weights else messages.pack({})

    def _done(self, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> bytes:
        """A result, or the words why there is none. What is wrong with it is said to whom it comes from."""
        with self._changed:
            machine = self._known(values)
            if machine is None:
                return messages.pack({"unknown": True})
            number = values.get("number")
            one = self._submitted.get(number) if isinstance(number, int) else None
            if one is None or one.weights != values.get("weights"):
                if isinstance(number, int):
                    self.items.finish(number, machine.identity)  # it tells how fast the machine is
                return messages.pack({})  # of a step that is over, or somebody was quicker and it was used
        wrong = ""
        result = None
        try:
            if "failed" in values:
                wrong = str(values["failed"])[:200]
            else:
                result = self._read(one.item, values, arrays)
        except (ValueError, TypeError, KeyError) as error:
            wrong = str(error)[:200]
        with self._changed:
            if wrong:
                self.items.give_back(machine.identity, number)
                machine.refused += 1
                if machine.refused >= REFUSALS:
                    machine.sent_away = f"{REFUSALS} results in a row could not be used"
            else:
                machine.refused = 0
                self._count(machine, one.item, _seconds(values))
                if self.items.finish(cast("int", number), machine.identity):
                    one.result, one.done = result, True
                    self._take_sample(machine, one.item, result)
            self._changed.notify_all()
        if wrong:
            self._note(f"worker {machine.name}: item {number} is computed again: {wrong}")
            return messages.pack({"refused": wrong})
        return messages.pack({})

    def _beat(self, values: dict[str, Any], _: Any) -> bytes:
        with self._changed:
            machine = self._known(values)
            if machine is None:
                return messages.pack({"unknown": True})
            return messages.pack(
                {"end": self._closed or machine.sent_away} if self._closed or machine.sent_away else {}
            )

    def _leave(self, values: dict[str, Any], _: Any) -> bytes:
        """A worker goes: its items are given out again at once."""
        with self._changed:
            machine = self._known(values)
            if machine is not None:
                self.items.give_back(machine.identity)
                del self.machines[machine.identity]
                self._changed.notify_all()
        if machine is not None:
            self._note(f"worker {machine.name} has left")
        return messages.pack({})

    # What they share; the lock is held ----------------------------------------------------------------------------

    def _known(self, values: dict[str, Any]) -> WorkerState | None:
        """The worker that calls, who is heard of by it; None for one that was never admitted, or given up."""
        machine = self.machines.get(str(values.get("worker")))
        if machine is None or machine.lost:
            return None
        machine.heard = self.clock()
        return machine

    def _look_for_lost(self) -> None:
        now = self.clock()
        for machine in self.machines.values():
            if not machine.lost and now - machine.heard > LOST_SECONDS:
                machine.lost = True
                self.items.give_back(machine.identity)
                self._said.append(
                    f"worker {machine.name} has not been heard of for {LOST_SECONDS:.0f} s; others do its items"
                )

    def _count(self, machine: WorkerState, item: messages.Item, seconds: float) -> None:
        machine.seconds += seconds
        if isinstance(item, work.WritingItem):
            machine.rows += len(item.requests)

    def _read(self, item: messages.Item, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
        if isinstance(item, work.WritingItem):
            return messages.read_rows(
                item, values, arrays, vocabulary=self.vocabulary, stop_tokens=self.policy.stop_tokens
            )
        if isinstance(item, work.LogprobItem):
            return messages.read_logprobs(item, arrays)
        return messages.read_gradient(item, values, arrays, self.shapes)

    def _take_sample(self, machine: WorkerState, item: messages.Item, rows: Any) -> None:
        """Keep some rows of a worker, at temperature 1, where trainer and sampler mean the same distribution."""
        if not isinstance(item, work.WritingItem) or item.temperature != 1 or item.top_p != 1:
            return
        prompts = {request.key: request.prompt for request in item.requests}
        for row in rows:
            if sum(len(one.completion) for one in machine.sample) + len(row.tokens) > GAP_TOKENS:
                return
            machine.sample.append(
                Example(prompts[row.key], row.tokens, np.asarray(row.logprobs, np.float32), advantage=0.0)
            )

    def _note(self, line: str) -> None:
        with self._changed:
            self._said.append(line)


def _line(machine: WorkerState, share: float, passed: float, now: float) -> str:
    words = [f"{machine.name:<16.16} {100 * share:>3.0f}% of the work {machine.rows / passed:>6.1f} rows/s"]
    if machine.name != HERE:
        words.append(f"heard of {now - machine.heard:.0f} s ago")
    if machine.gap is not None:
        words.append(f"gap {machine.gap:.1e}")
    words += [machine.sent_away or "lost"] * bool(machine.sent_away or machine.lost)
    return "  ".join(words)


def _to_mlx(result: Any) -> Any:
    gradients, sums = result
    return {name: mx.array(value) for name, value in gradients.items()}, sums


def _words(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > 50:
        raise ValueError("versions are a table of names and words")
    return {str(name)[:40]: _plain(words, 80) for name, words in value.items()}


def _name(values: Mapping[str, Any]) -> str:
    """What a worker calls itself, as it may stand on a console."""
    return _plain(values.get("name", ""), 40) or "without a name"


def _plain(value: Any, length: int) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(value)[:length])


def _seconds(values: Mapping[str, Any]) -> float:
    seconds = values.get("seconds")
    return min(max(float(seconds), 0.0), 1e6) if isinstance(seconds, (int, float)) and seconds == seconds else 0.0
