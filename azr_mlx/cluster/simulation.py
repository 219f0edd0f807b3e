"""A step on machines that are not there: how long it takes, how busy each is, what crosses the network. No MLX.

The list of items is the real one (`item_list`), on a clock that jumps from event to event; the machines and the network
are given. The coordinator computes too, sends the adapters to every worker once, and receives each gradient that was
computed elsewhere; all of that passes its one network port, one transfer after the other.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from azr_mlx.cluster.item_list import ItemList

LOOK_SECONDS = 0.2  # how often one without an item looks whether another is late


@dataclass(frozen=True)
class SimulatedMachine:
    """How long a machine takes for a whole step's completions, and for its gradient, alone (seconds)."""

    name: str
    writing: float
    learning: float


@dataclass
class SimulatedStep:
    """What came of a step: its seconds, those each machine computed for it, bytes received by the coordinator."""

    seconds: float = 0.0
    busy: list[float] = field(default_factory=list)  # the coordinator first; repeated items count
    work: list[float] = field(default_factory=list)  # what each did that was used, in seconds of the coordinator
    items: list[int] = field(default_factory=list)  # results of each that were used, in the last phase
    received: float = 0.0
    repeated: int = 0

    @property
    def idle(self) -> float:
        """Share of all machines' time in which they computed nothing."""
        return max(0.0, 1.0 - sum(self.busy) / (len(self.busy) * self.seconds)) if self.seconds else 0.0


def simulate(
    machines: Sequence[SimulatedMachine],
    writing: Sequence[float],
    learning: Sequence[float],
    adapter_bytes: float,
    bandwidth: float,
    *,
    per_item: float = 0.0,
    steps: int = 4,
) -> SimulatedStep:
    """The last of some steps, when every machine's speed is known.

    machines: the coordinator first. writing, learning: what each item costs, in any unit. bandwidth: bytes a second of
    the coordinator's port. per_item: seconds for packing, reading and checking an item that is
    computed elsewhere.
    """
    clock = _Clock()
    items = ItemList(clock)
    step = SimulatedStep()
    ready = [0.0] * len(machines)
    for _ in range(steps):
        began, repeated = clock.now, items.repeated
        step = SimulatedStep(busy=[0.0] * len(machines), work=[0.0] * len(machines))
        port = clock.now
        for i in range(1, len(machines)):
            port += adapter_bytes / bandwidth
            ready[i] = max(ready[i], port)
        for kind, costs in (("write", writing), ("gradient", learning)):
            size = adapter_bytes if kind == "gradient" else 0.0
            step.items = [0] * len(machines)
            ready = _phase(clock, items, machines, kind, costs, size / bandwidth, per_item, ready, step)
            step.received += size * sum(step.items[1:])
        step.seconds, step.repeated = clock.now - began, items.repeated - repeated
    return step


@dataclass
class _Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def _phase(
    clock: _Clock,
    items: ItemList,
    machines: Sequence[SimulatedMachine],
    kind: str,
    costs: Sequence[float],
    transfer: float,
    per_item: float,
    ready: Sequence[float],
    step: SimulatedStep,
) -> list[float]:
    """Compute a list of items; returns when each machine is free for the next one."""
    items.clear()
    total = sum(costs)
    first = items.newest + 1
    for place, cost in enumerate(costs):
        items.add(first + place, kind, cost)
    paces = [(one.writing if kind == "write" else one.learning) / total for one in machines]
    # (when, order, machine, item): item None is a machine that looks for one; -1 - n is the arrival of item n.
    events: list[tuple[float, int, int, int | None]] = []
    for i, when in enumerate(ready):
        heapq.heappush(events, (max(when, clock.now), i, i, None))
    order, left, port = len(machines), len(costs), clock.now
    while left:
        clock.now, _, who, number = heapq.heappop(events)
        order += 1
        if number is not None and number >= 0 and who and transfer:  # computed; now it travels, while the next begins
            port = max(port, clock.now) + transfer
            heapq.heappush(events, (port, order, who, -1 - number))
        elif number is not None:
            done = number if number >= 0 else -1 - number
            if items.finish(done, machines[who].name):
                left -= 1
                step.items[who] += 1
                step.work[who] += costs[done - first] * paces[0]
        if number is None or number >= 0:
            taken = items.take(machines[who].name) if left else None
            order += 1
            if taken is None:
                heapq.heappush(events, (clock.now + LOOK_SECONDS, order, who, None))
            else:
                seconds = costs[taken - first] * paces[who] + (per_item if who else 0.0)
                step.busy[who] += seconds
                heapq.heappush(events, (clock.now + seconds, order, who, taken))
    ends = [clock.now] * len(machines)
    for when, _, who, number in events:  # an item that nobody waits for any more is computed to its end
        if number is not None and number >= 0:
            step.busy[who] -= when - clock.now
            ends[who] = when
    return ends
