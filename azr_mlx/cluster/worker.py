"""A worker: fetches items from the coordinator, computes them, sends the numbers back.

It holds a copy of the model and writes no file. The items are computed by the thread that calls `run`, as MLX wants it;
a second thread says every other second that this machine lives, a third one sends results while the next item is
computed. When the coordinator is gone the worker waits for it, and says so.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
import numpy as np

from azr_mlx import config
from azr_mlx.cluster import description, messages
from azr_mlx.cluster.transport import Connection, NotAdmitted, Unreachable
from azr_mlx.errors import AzrError
from azr_mlx.model import work
from azr_mlx.model.policy import Policy

CALL_SECONDS = 20.0  # a call that should be answered at once
POLL_SECONDS = 30.0  # a call for an item, which the coordinator lets wait for ten
TRANSFER_SECONDS = 300.0  # adapters and gradients: hundreds of megabytes on a slow network
BEAT_SECONDS = 2.0
RETRY_SECONDS = 2.0

Say = Callable[[str], None]


class _Rejoin(Exception):
    """The coordinator does not know this worker (any more): it must introduce itself again."""


@dataclass
class Worker:
    """One machine's part in a run. `model` names the model's folder here, where it is not the coordinator's name for
    it; `patience` is how many seconds the coordinator is waited for."""

    connection: Connection
    address: str
    name: str
    say: Say
    model: str = ""
    patience: float = 3600.0
    slowdown: float = 1.0  # computes, then waits until it has taken so many times as long: for trying slow machines

    def __post_init__(self) -> None:
        tell = self.say

        def say(line: str) -> None:
            with suppress(OSError):  # a log on a full disk is no reason to stop
                tell(line)

        self.say = say
        self._policy: Policy | None = None
        self._loaded = ""  # the run's text by which the policy was loaded
        self._weights = ""
        self._identity = ""

    def run(self) -> str:
        """Work until the coordinator says why it is over; returns these words.

        Raises AzrError when this worker is refused, or the coordinator has been away for `patience` seconds.
        """
        away_since: float | None = None
        while True:
            try:
                self._introduce()
                away_since = None
                return self._work()
            except _Rejoin:
                continue
            except Unreachable as error:
                now = time.monotonic()
                if away_since is None:
                    away_since = now
                    self.say(f"waiting for {self.address}: {_short(error)}")
                if now - away_since > self.patience:
                    raise AzrError(
                        f"{self.address} has not answered for {self.patience:.0f} s: is azr train --workers running "
                        "there?"
                    ) from None
                time.sleep(min(RETRY_SECONDS, self.patience))

    def leave(self) -> None:
        """Tell the coordinator that this machine goes, so that its item is given out again at once."""
        if self._identity:
            with suppress(Unreachable, AzrError, ValueError):
                self._call("Leave", {}, seconds=3.0)

    # Joining ----------------------------------------------------------------------------------------------------

    def _introduce(self) -> None:
        self._identity = ""
        told, _ = self._call("Hello", {"name": self.name, "versions": description.versions()})
        text = told.get("config")
        if text != self._loaded or self._policy is None:
            settings = description.read_run(text)
            self.say(f"loading {self.model or settings.model.id}")
            self._policy = self._load(settings)
            self._loaded = cast("str", text)
        self._weights = ""
        told, _ = self._call("Join", {"name": self.name, "description": description.describe(self._policy)})
        self._identity = str(told.get("worker"))
        self.say(f"joined {self.address} as {told.get('name')}")

    def _load(self, settings: config.Config) -> Policy:
        from dataclasses import replace

        model = replace(settings.model, id=self.model) if self.model else settings.model
        return Policy.load(model, settings.lora, settings.optim, settings.sampling, settings.loss)

    # Working ----------------------------------------------------------------------------------------------------

    def _work(self) -> str:
        policy = self._policy
        assert policy is not None
        results: queue.Queue[tuple[dict[str, Any], dict[str, np.ndarray]] | None] = queue.Queue(maxsize=2)
        over = threading.Event()
        failures: list[Exception] = []
        threads = [
            threading.Thread(target=self._send, args=(results, failures), daemon=True),
            threading.Thread(target=self._beat, args=(over, failures), daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            while True:
                if failures:
                    raise failures[0]
                told, arrays = self._call("Next", {}, seconds=POLL_SECONDS)
                if "end" in told:
                    return str(told["end"])[:200]
                if "item" in told:
                    _put(results, self._compute(policy, told, arrays), failures)
        finally:
            over.set()
            _put(results, None, failures)
            threads[0].join(5.0)

    def _compute(
        self, policy: Policy, told: dict[str, Any], arrays: dict[str, np.ndarray]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The answer to an item: its result as numbers, or why there is none."""
        answer = {"number": told.get("number"), "weights": told.get("weights")}
        began = time.monotonic()
        try:
            item = messages.read_item(told["item"], arrays)
            if told.get("weights") != self._weights:
                self._fetch_weights(policy, str(told.get("weights")))
            result = cast("work.WorkItem[Any]", item).compute(policy)
            values, numbers = messages.result_message(item, result)
        except (Unreachable, AzrError, _Rejoin):
            raise
        except Exception as error:  # whatever fails here, another machine may manage; the coordinator counts
            self.say(f"item {told.get('number')} failed: {_short(error)}")
            return answer | {"failed": f"{type(error).__name__}: {_short(error)}"}, {}
        if self.slowdown > 1:
            time.sleep((self.slowdown - 1) * (time.monotonic() - began))
        return answer | {"seconds": time.monotonic() - began} | values, numbers

    def _fetch_weights(self, policy: Policy, weights: str) -> None:
        told, arrays = self._call("Weights", {"weights": weights}, seconds=TRANSFER_SECONDS)
        if told.get("weights") != weights:
            raise ValueError("the adapters have changed meanwhile")
        shapes = {name: tuple(value.shape) for name, value in policy.adapter().items()}
        policy.put_adapter({name: mx.array(value) for name, value in messages.read_parameters(arrays, shapes).items()})
        self._weights = weights

    def _send(self, results: queue.Queue[Any], failures: list[Exception]) -> None:
        while (answer := results.get()) is not None:
            try:
                told, _ = self._call("Done", answer[0], answer[1], seconds=TRANSFER_SECONDS)
            except Exception as error:
                failures.append(error)
                return
            del told, answer

    def _beat(self, over: threading.Event, failures: list[Exception]) -> None:
        while not over.wait(BEAT_SECONDS):
            try:
                self._call("Beat", {})
            except Exception as error:
                failures.append(error)
                return

    def _call(
        self,
        method: str,
        values: dict[str, Any],
        arrays: messages.Arrays | None = None,
        *,
        seconds: float = CALL_SECONDS,
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """An answer. Raises Unreachable, NotAdmitted when this machine is refused, _Rejoin when it is not known."""
        message = messages.pack({"worker": self._identity} | values, arrays)
        told, given = messages.unpack(self.connection.call(method, message, seconds))
        if told.get("unknown"):
            raise _Rejoin
        if "refused" in told:
            words = _plain(told["refused"])
            if method != "Done":
                raise NotAdmitted(f"{self.address} refuses this worker: {words}")
            self.say(f"result refused: {words}")
        return told, given


def _put(results: queue.Queue[Any], value: Any, failures: list[Exception]) -> None:
    """Hand a result to the thread that sends; give up when that thread has."""
    while not failures:
        with suppress(queue.Full):
            results.put(value, timeout=0.5)
            break


def _short(error: object) -> str:
    return _plain(str(error).splitlines()[0] if str(error) else type(error).__name__)


def _plain(words: object) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(words)[:300])
