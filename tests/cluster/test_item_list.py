"""Items are pulled; what is late is given out again, and the first result counts. On a clock of the test's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from azr_mlx.cluster.item_list import FIRST_PATIENCE, ItemList


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def listed(number: int, cost: float = 100.0) -> tuple[ItemList, Clock]:
    clock = Clock()
    items = ItemList(clock)
    for i in range(number):
        items.add(i, "write", cost)
    return items, clock


def test_everybody_takes_the_next_item_in_list_order() -> None:
    items, _ = listed(4)
    assert [items.take(who) for who in ("a", "b", "a", "c", "b")] == [0, 1, 2, 3, None]


def test_the_items_of_one_that_goes_are_the_next_ones() -> None:
    items, _ = listed(3)
    assert (items.take("a"), items.take("b")) == (0, 1)
    items.give_back("a")
    assert (items.take("b"), items.take("b")) == (0, 2)


def test_an_item_on_a_silent_machine_is_computed_again_and_the_first_result_counts() -> None:
    items, clock = listed(2)
    assert (items.take("silent"), items.take("b")) == (0, 1)
    clock.now = 1.0
    assert items.finish(1, "b")
    assert items.take("b") is None  # not yet late: nobody knows how long "silent" takes
    clock.now = FIRST_PATIENCE + 1
    assert items.take("b") == 0
    assert items.finish(0, "b")
    assert not items.finish(0, "silent")
    assert items.repeated == 1


def test_one_that_would_end_before_a_slow_machine_takes_its_item_over() -> None:
    items, clock = listed(4)
    assert (items.take("slow"), items.take("fast")) == (0, 1)
    clock.now = 10.0
    assert items.finish(1, "fast")
    clock.now = 50.0
    assert items.finish(0, "slow")
    assert (items.take("slow"), items.take("fast")) == (2, 3)
    clock.now = 60.0
    assert items.finish(3, "fast")
    assert items.take("fast") == 2  # 10 seconds, where the slow one has 40 left


def test_a_slow_machine_leaves_the_last_items_to_those_who_end_them_all_before_it_would_end_one() -> None:
    items, clock = listed(12)
    assert (items.take("slow"), items.take("fast")) == (0, 1)
    for number in range(1, 10):
        clock.now += 10.0
        assert items.finish(number, "fast")
        assert items.take("fast") == number + 1
    clock.now += 5.0
    assert items.finish(0, "slow")
    assert items.take("slow") is None  # 95 seconds for the last one, where "fast" ends its own and that one in 15
    clock.now += 5.0
    assert items.finish(10, "fast")
    assert items.take("fast") == 11


def test_two_equal_machines_never_repeat_each_other() -> None:
    items, clock = listed(40)
    busy = {"a": items.take("a"), "b": items.take("b")}
    for _ in range(19):
        clock.now += 10.0
        for who in busy:
            assert items.finish(busy[who], who)
            busy[who] = items.take(who)
    assert items.repeated == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["take", "finish", "lost", "wait"])), max_size=200))
def test_whatever_happens_every_item_is_done_once_and_nothing_is_stuck(events: list[tuple[str, str]]) -> None:
    items, clock = listed(5)
    held: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    done: list[int] = []
    for who, event in events:
        if event == "take":
            number = items.take(who)
            held[who] += [number] if number is not None else []
        elif event == "finish" and held[who]:
            number = held[who].pop()
            done += [number] if items.finish(number, who) else []
        elif event == "lost":
            items.give_back(who)
        else:
            clock.now += 100.0
    clock.now += 10_000.0
    while (number := items.take("coordinator")) is not None:
        done += [number] if items.finish(number, "coordinator") else []
    assert sorted(done) == list(range(5))
