"""Reward functions of the user's: called as TRL calls them, and one bad answer costs only itself."""

from __future__ import annotations

import math
import signal
import time

import pytest

from azr_mlx.errors import AzrError, UsageError
from azr_mlx.rows.reading import Row
from azr_mlx.rows.reward_functions import Answer, RewardFunction, load
from azr_mlx.rows.time_limit import TimeLimitReached, time_limit

ANSWERS = [Answer(Row(n, f"p{n}", {"answer": str(n)}), f"c{n}", (n,)) for n in (1, 2, 3)]


def reward(function, seconds=20.0) -> RewardFunction:
    return RewardFunction("f", "r.py:f", function, seconds, total_steps=9)


def test_a_function_gets_what_trl_gives_it():
    seen = {}

    def function(prompts, completions, **columns):
        seen.update(columns, prompts=prompts, completions=completions)
        columns["log_metric"]("seen", 1.0)
        columns["log_extra"]("column", completions)
        return [1, None, 0.5]

    called = reward(function)
    assert called(ANSWERS, step=4) == [1.0, None, 0.5]
    assert (seen["prompts"], seen["completions"]) == (["p1", "p2", "p3"], ["c1", "c2", "c3"])
    assert (seen["answer"], seen["completion_ids"]) == (["1", "2", "3"], [[1], [2], [3]])
    assert (seen["trainer_state"].global_step, seen["trainer_state"].max_steps) == (4, 9)
    assert (called.logged, called.failures) == ({"seen": [1.0]}, [])


def test_a_conversation_comes_as_messages():
    row = Row(1, [{"role": "user", "content": "?"}], {})
    got = reward(lambda completions, **_: [float(one[0]["content"] == "!") for one in completions])
    assert got([Answer(row, "!")], 0) == [1.0]


def test_an_async_function_and_one_with_few_arguments_work_as_well():
    async def later(completions, **_):
        return [0.0] * len(completions)

    assert reward(later)(ANSWERS, 0) == [0.0] * 3
    assert reward(lambda completions, answer: [float(a) for a in answer])(ANSWERS, 0) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("how", ["raise", "short", "nan", "text"])
def test_one_bad_answer_costs_only_its_own_reward(how):
    def function(completions, **_):
        if "c2" not in completions:
            return [1.0] * len(completions)
        if how == "raise":
            raise KeyError("answer")
        bad = {"short": [], "nan": [math.nan], "text": ["good"]}[how]
        return [1.0 for one in completions if one != "c2"] + bad if len(completions) == 1 or how == "short" else [
            1.0, *bad, 1.0,
        ]  # fmt: skip

    called = reward(function)
    assert called(ANSWERS, 0) == [1.0, None, 1.0]
    ((number, why),) = called.failures
    words = {"raise": "raised KeyError", "short": "returned 0 rewards", "nan": "returned nan", "text": "no number"}
    assert number == 2
    assert words[how] in why


def test_a_function_that_fails_for_every_answer_ends_the_run_in_one_line():
    with pytest.raises(AzrError, match=r"r.py:f raised ZeroDivisionError.*every answer of step 7"):
        reward(lambda **_: 1 / 0)(ANSWERS, 7)
    with pytest.raises(AzrError, match="returned 1 rewards for 3 answers"):
        reward(lambda completions, **_: [1.0] if len(completions) > 1 else [])(ANSWERS, 7)


def test_a_slow_function_is_interrupted():
    def function(completions, **_):
        if "c2" in completions:
            time.sleep(100)
        return [1.0] * len(completions)

    called = reward(function, seconds=0.4)
    began = time.monotonic()
    assert called(ANSWERS, 0) == [1.0, None, 1.0]
    assert time.monotonic() - began < 60
    assert called.failures == [(2, "took more than 0.2 s")]
    with pytest.raises(AzrError, match=r"raise reward.seconds"):
        reward(lambda **_: time.sleep(100), seconds=0.2)(ANSWERS, 0)


def test_a_timer_that_was_set_before_goes_on():
    reached = []
    handler = signal.signal(signal.SIGALRM, lambda *_: reached.append(1))
    left, interval = signal.setitimer(signal.ITIMER_REAL, 100)
    try:
        with pytest.raises(TimeLimitReached), time_limit(0.05):
            time.sleep(10)
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 100
        assert reached == []
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, interval)
        signal.signal(signal.SIGALRM, handler)


def test_what_cannot_be_loaded_is_said_in_one_line(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("import helper_of_mine\ndef good(**_): return []\n")
    with pytest.raises(UsageError, match="cannot be imported: ModuleNotFoundError"):
        load(f"{file}:good", 1)
    (tmp_path / "helper_of_mine.py").write_text("")
    assert load(f"{file}:good", 1).name == "good"
    with pytest.raises(UsageError, match="has no function bad; it has good"):
        load(f"{file}:bad", 1)
    with pytest.raises(UsageError, match="there is no file"):
        load(f"{tmp_path / 'other.py'}:good", 1)
