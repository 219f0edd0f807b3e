"""The list that work items wait in: whoever is free takes the next one, and what is late is computed a second time.

Items are pulled, never assigned: a machine that is fast takes more of them, and a slow one leaves the last items to
those who end all of them before it would end one. An item whose holder is not heard of any more, or would end it later
than somebody free who begins now, is not waited for: it is given out again, and the first result counts. On equal
machines both would be the same.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

# Seconds an item may take on a machine that has computed none of its kind while nobody else has either.
FIRST_PATIENCE = 20.0
# An item is late after so many times what it should take, and some seconds.
LATE_FACTOR, LATE_SECONDS = 2.0, 1.0
# A machine without an item asks for one at least this often (seconds).
ASKS_AGAIN = 2.0
# The last items are left to others who end them in this share of the time that one of them would take here.
CLEARLY = 0.9
SMOOTHING = 0.5  # weight of the newest item in a machine's seconds per token


@dataclass
class _Entry:
    kind: str
    cost: float
    holders: dict[str, float] = field(default_factory=dict)  # who computes it, since when
    done: bool = False


class ItemList:
    """Which items wait, who computes which, and how fast everybody is. Not locked: its owner calls it under a lock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._entries: dict[int, _Entry] = {}  # in list order
        self._pace: dict[tuple[str, str], float] = {}  # (who, kind) -> seconds for each unit of cost
        self._over: dict[int, _Entry] = {}  # nobody waits for these, but somebody computes them
        self._seen: dict[str, float] = {}  # who -> when it asked or answered last
        self.newest = -1  # number added last
        self.repeated = 0  # items that were given out again

    def add(self, number: int, kind: str, cost: float) -> None:
        """An item joins the end of the list. cost: about its tokens, comparable within a kind."""
        self._entries[number] = _Entry(kind, max(cost, 1.0))
        self.newest = number

    def take(self, who: str) -> int | None:
        """The number of an item for `who` to compute: the first that waits, else the first that is worth repeating."""
        now = self._seen[who] = self.clock()
        waiting = [number for number, one in self._entries.items() if not one.done and not one.holders]
        number = waiting[0] if waiting else None
        if number is not None and self._left_to_others([self._entries[n] for n in waiting], who, now):
            return None
        if number is None:
            number = next((n for n, one in self._entries.items() if self._worth_repeating(one, who, now)), None)
            if number is None:
                return None
            self.repeated += 1
        self._entries[number].holders[who] = now
        return number

    def finish(self, number: int, who: str) -> bool:
        """`who` has a result; returns whether it is the first one. Unknown numbers are of a step that is over."""
        self._seen[who] = self.clock()
        one = self._entries.get(number) or self._over.pop(number, None)
        if one is None:
            return False
        began = one.holders.pop(who, None)
        if began is not None:
            pace = (self.clock() - began) / one.cost
            known = self._pace.get((who, one.kind), pace)
            self._pace[who, one.kind] = known + SMOOTHING * (pace - known)
        first, one.done = not one.done, True
        return first and number in self._entries

    def give_back(self, who: str, number: int | None = None) -> None:
        """`who` does not compute that item any more (None: any of its items, for it is gone)."""
        if number is None:
            self._seen.pop(who, None)
        for n, one in self._entries.items():
            if number is None or n == number:
                one.holders.pop(who, None)

    def forget(self, number: int) -> None:
        """Nobody waits for the item any more; who still computes it tells by that how fast it is."""
        one = self._entries.pop(number, None)
        if one is not None and one.holders:
            self._over[number] = one

    def clear(self) -> None:
        """Nobody waits for any item any more. Numbers are never used twice."""
        self._over.clear()
        for number in list(self._entries):
            self.forget(number)

    def __len__(self) -> int:
        return len(self._entries)

    def is_held(self, number: int) -> bool:
        return bool(self._entries[number].holders)

    def expected(self, who: str, number: int) -> float | None:
        """Seconds that an item should take `who`; None when nothing like it has been computed yet."""
        return self._expected(who, self._entries[number])

    def _expected(self, who: str, one: _Entry) -> float | None:
        pace = self._pace.get((who, one.kind))
        if pace is None:
            others = [value for (_, kind), value in self._pace.items() if kind == one.kind]
            pace = median(others) if others else None
        return None if pace is None else pace * one.cost

    def _left_to_others(self, waiting: list[_Entry], who: str, now: float) -> bool:
        """Whether the others end all that waits clearly before `who` would end the first of it.

        The fastest machine never leaves anything, so that what waits is always taken.
        """
        own = self._expected(who, waiting[0])
        if own is None:
            return False
        free = []  # (seconds until it is free, who)
        for other, seen in self._seen.items():
            if other != who and (busy := self._busy(other, now)) is not None and (busy or now - seen <= ASKS_AGAIN):
                free.append((busy, other))
        if not free:
            return False
        heapq.heapify(free)
        last = 0.0
        for one in waiting:
            start, other = heapq.heappop(free)
            expected = self._expected(other, one)
            assert expected is not None  # `own` is known, so everybody's is
            last = max(last, start + expected)
            if last >= CLEARLY * own:
                return False
            heapq.heappush(free, (start + expected, other))
        return True

    def _busy(self, who: str, now: float) -> float | None:
        """Seconds until `who` should have ended what it holds; None when it is late, or nothing is known of it."""
        longest = 0.0
        for one in self._entries.values():
            if who in one.holders:
                expected, elapsed = self._expected(who, one), now - one.holders[who]
                if expected is None or elapsed > LATE_FACTOR * expected + LATE_SECONDS:
                    return None
                longest = max(longest, expected - elapsed, 1e-9)
        return longest

    def _worth_repeating(self, one: _Entry, who: str, now: float) -> bool:
        """Whether the item is late everywhere, or `who` would end it before those who hold it."""
        if one.done or who in one.holders:
            return False
        own = self._expected(who, one)
        return all(self._gives_way(one, holder, now - since, own) for holder, since in one.holders.items())

    def _gives_way(self, one: _Entry, holder: str, elapsed: float, own: float | None) -> bool:
        expected = self._expected(holder, one)
        if expected is None or own is None:
            return elapsed > FIRST_PATIENCE
        if (holder, one.kind) not in self._pace:  # how slow it is shows only now
            return elapsed > own + LATE_SECONDS
        late = elapsed > LATE_FACTOR * expected + LATE_SECONDS
        return late or own + LATE_SECONDS < expected - elapsed
