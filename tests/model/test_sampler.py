"""What a row says depends on its prompt, its key and the model, and on nothing else."""

from __future__ import annotations

import dataclasses
import math
import random

import mlx.core as mx
import numpy as np
import pytest

from azr_mlx.model import sampler
from azr_mlx.model.backbone import Backbone
from azr_mlx.types import Stop
from tests.model.conftest import prompt

TEXTS = ["a", "def f(x):", "a much longer prompt, which goes on and on for a while", "def f(y):\n    return y", "Q?"]
FAMILIES = ["qwen3", "qwen3-untied", "qwen2", "llama"]


def by_key(rows):
    return {row.key: row for row in rows}


def requests(policy, n=3, max_tokens=24):
    return [
        sampler.Request(tuple(policy.encode(text)), (i, j), max_tokens)
        for i, text in enumerate(TEXTS)
        for j in range(n)
    ]


def tokens(rows):
    return {row.key: row.tokens for row in rows}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_says_what_each_row_says_alone(load, family):
    policy = load(family)
    together = by_key(sampler.generate(policy.model, requests(policy), seed=(1,), stop_tokens=policy.stop_tokens))
    for request in requests(policy):
        (alone,) = sampler.generate(policy.model, [request], seed=(1,), stop_tokens=policy.stop_tokens)
        assert alone.tokens == together[request.key].tokens
        np.testing.assert_allclose(alone.logprobs, together[request.key].logprobs, atol=1e-4)


def test_neither_width_nor_order_nor_neighbours_change_a_sample(load):
    policy = load()
    everything = requests(policy, n=6)
    expected = tokens(sampler.generate(policy.model, everything, seed=(7, 3), stop_tokens=policy.stop_tokens))
    for width in (1, 7, 64):
        shuffled = random.Random(width).sample(everything, len(everything))
        rows = list(
            sampler.generate(policy.model, shuffled, seed=(7, 3), max_rows=width, stop_tokens=policy.stop_tokens)
        )
        assert tokens(rows) == expected
    half = everything[::2]
    rows = list(sampler.generate(policy.model, half, seed=(7, 3), stop_tokens=policy.stop_tokens))
    assert tokens(rows) == {request.key: expected[request.key] for request in half}


def test_another_seed_or_key_gives_other_samples(load):
    policy = load()
    one, other = (tokens(sampler.generate(policy.model, requests(policy), seed=(s,))) for s in (1, 2))
    assert all(one[key] != other[key] for key in one)
    assert len({row for key, row in one.items() if key[0] == 0}) == 3


def test_rows_forked_from_one_prefill_equal_rows_prefilled_one_by_one(load):
    policy = load()
    forked = by_key(sampler.generate(policy.model, requests(policy, n=4), seed=(5,)))
    count = sampler.Count()
    for request in requests(policy, n=4):
        (row,) = sampler.generate(policy.model, [request], seed=(5,), count=count)
        assert row.tokens == forked[row.key].tokens
    assert count.prefill_tokens == 4 * sum(len(policy.encode(text)) for text in TEXTS)


def test_a_prompt_is_prefilled_once_for_all_its_samples(load):
    policy, count = load(), sampler.Count()
    list(sampler.generate(policy.model, [r for r in requests(policy, n=8) if r.key[0] == 2], seed=(5,), count=count))
    assert count.prefill_tokens == len(policy.encode(TEXTS[2]))
    assert count.prompt_tokens == 8 * count.prefill_tokens


def test_a_shared_instruction_is_prefilled_once_and_changes_nothing(load):
    policy = load()
    instruction = tuple(policy.encode("You are asked for the output of a program. " * 10))
    asked = [
        sampler.Request(instruction + tuple(policy.encode(t)), (i, j), 12) for i, t in enumerate(TEXTS) for j in (0, 1)
    ]
    count = sampler.Count()
    together = tokens(sampler.generate(policy.model, asked, seed=(2,), count=count))
    alone = {r.key: next(iter(sampler.generate(policy.model, [r], seed=(2,)))).tokens for r in asked}
    assert together == alone
    longest = max(len(policy.encode(text)) for text in TEXTS)
    # A prefix is a multiple of 32 tokens, so up to 31 of the instruction are computed with each text.
    assert count.prefill_tokens <= len(instruction) + len(TEXTS) * (31 + longest)


def test_prefixes_are_shared_in_a_tree_and_remembered_between_calls(load):
    policy = load()
    roles = ["You solve. " * 8, "You propose. " * 8]
    kinds = ["Deduction: say what f returns. " * 3, "Abduction: say what f was given. " * 3]
    texts = [role + kind + text for role in roles for kind in kinds for text in TEXTS[:3]]
    texts += ["short", "A text of its own. " * 5]
    asked = [sampler.Request(tuple(policy.encode(t)), (i, j), 8) for i, t in enumerate(texts) for j in (0, 1)]
    alone = {r.key: next(iter(sampler.generate(policy.model, [r], seed=(2,)))).tokens for r in asked}
    prefixes, first, second = {}, sampler.Count(), sampler.Count()
    assert tokens(sampler.generate(policy.model, asked, seed=(2,), prefixes=prefixes, count=first)) == alone
    # Roles are 88 and 112 characters long, kinds 93 and 99; a prefix is a multiple of 32 tokens.
    depths = sorted(len(key[-1]) for key in prefixes)
    assert depths == [64, 96, 160, 160, 192, 192]
    assert tokens(sampler.generate(policy.model, asked, seed=(2,), prefixes=prefixes, count=second)) == alone
    assert first.prefill_tokens - second.prefill_tokens == 64 + 96 + 2 * (160 - 64) + 2 * (192 - 96)
    assert first.prefill_tokens < 0.5 * first.prompt_tokens


def test_two_thousand_shared_tokens_are_computed_about_once(load):
    """64 rollouts of 8 prompts behind one instruction: at most a sixth of the prompt tokens is computed."""
    policy, count = load(), sampler.Count()
    instruction = tuple(policy.encode("x = f(y) is what you are asked. " * 63))[:2000]
    asked = [
        sampler.Request(instruction + tuple(policy.encode(f"case {i}" * 12)), (i, j), 1)
        for i in range(8)
        for j in range(8)
    ]
    list(sampler.generate(policy.model, asked, seed=(1,), count=count))
    assert count.prefill_tokens <= count.prompt_tokens / 6


def test_the_logprob_is_that_of_the_model_within_a_ten_thousandth(load):
    policy = load()
    for family_row in sampler.generate(policy.model, requests(policy), seed=(3,), stop_tokens=policy.stop_tokens):
        text = policy.encode(TEXTS[family_row.key[0]])
        logits = policy.model(mx.array([[*text, *family_row.tokens]]))[0, len(text) - 1 : -1].astype(mx.float32)
        exact = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
        exact = exact[np.arange(len(family_row.tokens)), list(family_row.tokens)]
        np.testing.assert_allclose(family_row.logprobs, exact, atol=1e-4)


def test_temperature_and_top_p_are_part_of_the_reported_distribution(load):
    policy = load()
    (row,) = sampler.generate(policy.model, requests(policy)[:1], seed=(3,), temperature=0.7, top_p=0.8)
    text = policy.encode(TEXTS[0])
    logits = np.array(policy.model(mx.array([[*text, *row.tokens]]))[0, len(text) - 1 : -1], dtype=np.float64) / 0.7
    for position, token in enumerate(row.tokens):
        p = np.exp(logits[position] - logits[position].max())
        p /= p.sum()
        order = np.argsort(-p)
        kept = order[: int(np.searchsorted(np.cumsum(p[order]), 0.8)) + 1]
        assert token in kept
        assert math.isclose(row.logprobs[position], math.log(p[token] / p[kept].sum()), abs_tol=1e-4)


def test_greedy_takes_the_likeliest_token_whatever_the_seed(load):
    policy = load()
    one, other = (tokens(sampler.generate(policy.model, requests(policy), seed=(s,), temperature=0)) for s in (1, 2))
    assert one == other
    text = policy.encode(TEXTS[1])
    for position, token in enumerate(one[(1, 0)]):
        row = policy.model(mx.array([[*text, *one[(1, 0)][:position]]]))[0, -1]
        assert int(mx.argmax(row).item()) == token


@pytest.mark.parametrize("size", [40, 3000, 4096, 151936])
def test_draws_follow_the_distribution_in_one_level_and_in_two(size):
    rng = np.random.default_rng(0)
    likely = rng.choice(size, 30, replace=False)
    logits = np.full(size, -30.0, np.float32)
    logits[likely] = rng.normal(size=30)
    number = 20_000 if size < 10_000 else 500
    uniforms = sampler.keyed_uniforms(np.arange(number, dtype=np.uint64), np.zeros(number, dtype=np.uint64))
    drawn, logprobs = [], []
    for part in np.array_split(uniforms, max(1, number * size // 10_000_000)):
        t, lp = sampler.draw_tokens(mx.broadcast_to(mx.array(logits), (len(part), size)), mx.array(part), 1.0, 1.0)
        drawn.append(np.array(t))
        logprobs.append(np.array(lp))
    drawn, logprobs = np.concatenate(drawn), np.concatenate(logprobs)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum()
    np.testing.assert_allclose(logprobs, np.log(p[drawn]), atol=1e-4)
    share = np.bincount(drawn, minlength=size) / number
    assert np.abs(share - p).max() < 4 * math.sqrt(0.25 / number)


def test_a_token_of_probability_zero_is_never_drawn():
    weights = mx.array([[0.0, 1.0, 0.0, 1.0, 0.0]] * 3)
    edges = mx.array([[0.0], [0.5], [1 - 2.0**-23]])
    assert sampler._invert(weights, edges)[0].tolist() == [1, 3, 3]


def test_keyed_uniforms_are_uniform_and_never_one():
    salts = np.array([sampler._salt((1, 2, 3), (i, 0)) for i in range(2000)], dtype=np.uint64)
    u = np.concatenate([sampler.keyed_uniforms(salts, np.full(2000, t, np.uint64)) for t in range(50)])
    assert u.min() >= 0
    assert u.max() < 1
    assert np.abs(np.histogram(u[:, 0], 10, (0, 1))[0] / len(u) - 0.1).max() < 0.005
    assert abs(np.corrcoef(u.T)[0, 1]) < 0.02


def test_keyed_uniforms_are_the_same_on_every_machine():
    """Written once more with Python's own integers: a change of the generator would break every resumed run."""

    def mix(x):
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    salt, position, golden = 2**63 + 12345, 7, 0x9E3779B97F4A7C15
    bits = mix(salt ^ mix((position * golden + golden) % 2**64))
    numbers = sampler.keyed_uniforms(np.array([salt], np.uint64), np.array([position], np.uint64))
    assert numbers.tolist() == [[(bits >> 41) / 2**23, (bits >> 9) % 2**23 / 2**23]]
    state = 0
    for word in (2, 5, 6, 1):
        state = mix(((state ^ word) + golden) % 2**64)
    assert sampler._salt((5, 6), (1,)) == state


def test_the_end_token_is_kept_as_the_last_one(load):
    policy = load()
    end = next(iter(policy.stop_tokens))
    rows = list(sampler.generate(policy.model, requests(policy, 20, 60), seed=(1,), stop_tokens=policy.stop_tokens))
    ended = [row for row in rows if row.stop is Stop.EOS]
    assert ended
    assert all(row.tokens[-1] == end and end not in row.tokens[:-1] for row in ended)
    assert all(end not in row.tokens and len(row.tokens) == 60 for row in rows if row.stop is Stop.LENGTH)


def test_every_request_gets_its_own_limit(load):
    policy = load()
    asked = [dataclasses.replace(r, max_tokens=1 + 3 * r.key[1] + r.key[0]) for r in requests(policy)]
    for row in sampler.generate(policy.model, asked, seed=(1,), max_rows=4):
        assert len(row.tokens) == 1 + 3 * row.key[1] + row.key[0]
        assert row.stop is Stop.LENGTH


def test_rows_leave_and_join_while_others_decode(load):
    policy, count = load(), sampler.Count()
    asked = [dataclasses.replace(r, max_tokens=5 if r.key[1] % 2 else 40) for r in requests(policy, n=8)]
    rows = list(sampler.generate(policy.model, asked, seed=(1,), max_rows=10, count=count))
    assert len(rows) == 40
    assert count.widest == 10
    assert count.new_tokens == sum(len(row.tokens) for row in rows)
    # 20 rows of 40 tokens and 20 of 5 need 900 row-steps: at most a fifth is lost to ended rows and the tail.
    assert count.decode_rows < 1.2 * 900


def test_while_rows_wait_a_batch_holds_whole_tiles_and_says_the_same(load):
    """Ten rows fit, tiles have four: eight are written together until the last wait no longer."""
    policy = load()
    asked = [dataclasses.replace(r, max_tokens=5 + 7 * (r.key[1] % 3)) for r in requests(policy, n=8)]
    expected, count = tokens(sampler.generate(policy.model, asked, seed=(1,), max_rows=10)), sampler.Count()
    decoder = sampler.Decoder(policy.model, seed=(1,), max_rows=10, tile=4, count=count)
    decoder.add(asked)
    written, widths = {}, set()
    while decoder.busy:
        before = count.decode_rows
        written |= {row.key: row.tokens for row in decoder.step()}
        if decoder.waiting:
            widths.add(count.decode_rows - before)
    assert written == expected
    assert widths - {0} == {8}  # 0: a step that only reads what the last one drew
    assert count.widest == 8
    assert count.tile_rows <= sum_of_tiles(policy, asked, 10, 4)


def sum_of_tiles(policy, asked, width, tile):
    """Rows in tiles that the usual batches of the same rollouts compute."""
    count, total = sampler.Count(), 0
    decoder = sampler.Decoder(policy.model, seed=(1,), max_rows=width, count=count)
    decoder.add(asked)
    while decoder.busy:
        before = count.decode_rows
        decoder.step()
        total += -(-(count.decode_rows - before) // tile) * tile
    return total


def test_rows_that_all_fit_are_not_held_back_for_a_tile(load):
    policy, count = load(), sampler.Count()
    list(sampler.generate(policy.model, requests(policy, n=2), seed=(1,), max_rows=64, tile=4, count=count))
    assert count.widest == 10


def test_without_tiles_every_row_counts_once(load):
    policy, count = load(), sampler.Count()
    list(sampler.generate(policy.model, requests(policy), seed=(1,), max_rows=7, count=count))
    assert count.tile_rows == count.decode_rows


def test_a_small_memory_budget_makes_rows_wait_but_changes_nothing(load):
    policy = load()
    expected = tokens(sampler.generate(policy.model, requests(policy), seed=(1,)))
    per_token, _ = Backbone(policy.model).cache_bytes()
    count = sampler.Count()
    columns = max(len(r.prompt) + r.max_tokens for r in requests(policy)) + sampler.CACHE_STEP
    room = 3 * columns * per_token
    rows = list(sampler.generate(policy.model, requests(policy), seed=(1,), kv_bytes=room, count=count))
    assert tokens(rows) == expected
    assert count.widest == 3
    one = sampler.Count()
    list(sampler.generate(policy.model, requests(policy)[:2], seed=(1,), kv_bytes=1, count=one))
    assert one.widest == 1


@pytest.mark.parametrize("budget", [4, 9, 40])
def test_keys_and_values_stay_within_their_budget_whoever_joins_when(load, budget):
    policy = load()
    per_token, _ = Backbone(policy.model).cache_bytes()
    decoder = sampler.Decoder(policy.model, seed=(1,), kv_bytes=budget * 256 * per_token)
    lengths = [(5 + 37 * i % 290, 1 + 61 * i % 240) for i in range(12)]
    asked = [sampler.Request((7,) * prompt, (i,), tokens) for i, (prompt, tokens) in enumerate(lengths)]
    decoder.add(asked[:6])
    written = most = steps = 0
    while decoder.busy:
        steps += 1
        if steps == 30:  # others join rows of every age
            decoder.add(asked[6:])
        written += len(decoder.step())
        if len(decoder.rows) > 1:
            most = max(most, sum(layer.nbytes for layer in decoder.cache))
    assert written == 12
    assert 0 < most <= decoder.kv_bytes


def test_requests_may_be_added_while_others_decode(load):
    policy = load()
    expected = tokens(sampler.generate(policy.model, requests(policy), seed=(4,)))
    decoder = sampler.Decoder(policy.model, seed=(4,))
    late = requests(policy)
    decoder.add(late[:5])
    rows = [*decoder.step(), *decoder.step()]
    decoder.add(late[5:])
    while decoder.busy:
        rows += decoder.step()
    assert tokens(rows) == expected


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="at least one token"):
        sampler.Request((), (0,), 5)
    with pytest.raises(ValueError, match="max_tokens is 0"):
        sampler.Request((1,), (0,), 0)


def test_a_stop_text_ends_a_row_and_stays_in_it(load):
    policy = load()
    free = policy.sample_all([prompt("hello")], 40, seed=(1,), max_tokens=60)[0]
    pairs = [r.completion.text[i : i + 2] for r in free for i in range(4, len(r.completion.text) - 8)]
    text = next(pair for pair in pairs if pair.isascii() and pair[0] != pair[1])
    stopped = policy.sample_all([prompt("hello")], 40, seed=(1,), max_tokens=60, stop=[text])[0]
    assert any(r.completion.stop is Stop.TEXT for r in stopped)
    for before, after in zip(free, stopped, strict=True):
        if text in before.completion.text:
            end = before.completion.text.index(text) + len(text)
            assert after.completion.text == before.completion.text[:end]
            assert after.completion.stop is Stop.TEXT
            assert after.completion.tokens == before.completion.tokens[: len(after.completion.tokens)]
        else:
            assert after.completion.tokens == before.completion.tokens
