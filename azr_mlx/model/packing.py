"""Rollouts as arrays: which of them are computed together, and how their tokens are laid out.

A prompt that several rows share is computed once, and so is a beginning that several prompts share (the instruction and
examples of a task kind). A micro-batch is therefore a tree of three levels: beginnings, what follows them in each
prompt, completions. Its tokens stand one after the other, each once, without padding: that is how the products with
weights, nearly all of an update, see them. Attention sees each level as padded rows, for it is small and wants equal
lengths; `Tree` holds the way there and back.

Letters: B rows, T tokens, N completion tokens of a micro-batch, S slots of the padded levels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np

# A beginning that prompts share is computed by itself when it has at least this many tokens.
SHORTEST_PREFIX = 32

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """One rollout as numbers: P prompt tokens, K completion tokens and K values of each kind."""

    prompt: Tokens
    completion: Tokens
    sampler: np.ndarray  # (K,) float32 log-probabilities the sampler reported
    advantage: float
    old: np.ndarray | None = None  # (K,) float32, denominators of the ratio
    reference: np.ndarray | None = None  # (K,) float32, log-probabilities with adapters off

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


# Which rows together ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pack:
    """Rows, by index, of one micro-batch; whether it computes equal prompts once; and the beginning of each row's
    prompt, in tokens, that it computes once for all prompts that have it (empty: none)."""

    rows: tuple[int, ...]
    shared: bool = False
    prefixes: tuple[int, ...] = ()
    apart: bool = False  # rows are laid out apart, for a trunk that is run as it is


def micro_batches(rows: Sequence[Example], budget: int, share: bool = False) -> list[Pack]:
    """Pack rows so that a micro-batch has at most `budget` tokens with its levels padded (one row may exceed it).

    Rows are sorted by length, so that little is padded. With `share`, rows whose prompt another row has as well go into
    packs that compute each prompt once, and prompts with a common beginning stand beside each other. The packing
    depends on nothing but the rows, and is made before any gradient is computed.
    """
    groups: dict[Tokens, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row.prompt, []).append(i)
    single = [[i] for group in groups.values() if len(group) == 1 or not share for i in group]
    # Sorted upwards: the row that joins is the longest of its family, so it sets the width of the pack.
    single.sort(key=lambda group: (len(rows[group[0]]), group[0]))
    packs = _fill(rows, _families(rows, single) if share else [(0, single)], budget, shared=False)
    if not share:
        return [replace(pack, apart=True) for pack in packs]
    several = [sorted(g, key=lambda i: (len(rows[i].completion), i)) for g in groups.values() if len(g) > 1]
    several.sort(key=lambda g: (len(rows[g[-1]].completion), len(rows[g[0]].prompt), g[0]))
    return packs + _fill(rows, _families(rows, several), budget, shared=True)


Family = tuple[int, list[list[int]]]  # tokens that all prompts begin with; the groups of rows of each prompt


def _families(rows: Sequence[Example], groups: list[list[int]]) -> list[Family]:
    """Groups by the beginning that their prompts share, such that the most tokens are saved; the order is kept."""
    place = {rows[group[0]].prompt: number for number, group in enumerate(groups)}

    def split(prompts: list[Tokens]) -> tuple[int, list[tuple[int, list[Tokens]]]]:
        """(tokens saved, families) of sorted prompts."""
        if len(prompts) == 1:
            return 0, [(0, prompts)]
        # One token at least is left of each prompt: what it predicts begins the completion.
        common = min(common_prefix(prompts[0], prompts[-1]), min(map(len, prompts)) - 1)
        common = common if common >= SHORTEST_PREFIX else 0
        saved, found = (len(prompts) - 1) * common, [(common, prompts)]
        cuts = [i for i in range(1, len(prompts)) if common_prefix(*prompts[i - 1 : i + 1]) < common + SHORTEST_PREFIX]
        parts = [prompts[a:b] for a, b in itertools.pairwise([0, *cuts, len(prompts)])]
        if len(parts) > 1:
            split_up = [split(part) for part in parts]
            if sum(part[0] for part in split_up) > saved or not common:
                saved, found = sum(part[0] for part in split_up), [one for part in split_up for one in part[1]]
        return saved, found

    families = [
        (prefix, [groups[number] for number in sorted(place[prompt] for prompt in prompts)])
        for prefix, prompts in (split(sorted(place))[1] if place else [])
    ]
    # What shares nothing goes together, sorted as it was.
    alone = [group for prefix, members in families if not prefix for group in members]
    together = [(prefix, members) for prefix, members in families if prefix]
    together.sort(key=lambda family: place[rows[family[1][-1][0]].prompt])
    alone.sort(key=lambda group: place[rows[group[0]].prompt])
    return ([(0, alone)] if alone else []) + together


def _fill(rows: Sequence[Example], families: Iterable[Family], budget: int, shared: bool) -> list[Pack]:
    """Packs of the families' rows, one after the other."""
    packs: list[Pack] = []
    members: list[tuple[int, int]] = []  # rows with the length of the beginning that they share
    levels = [(0, 0)] * 3  # nodes of each level and the tokens of the longest

    def close() -> None:
        nonlocal members, levels
        if members:
            packs.append(_pack(rows, members, shared))
        members, levels = [], [(0, 0)] * 3

    def grown(row: Example, prefix: int) -> list[tuple[int, int]]:
        """The levels when the row has joined."""
        last, before = (rows[members[-1][0]], members[-1][1]) if members else (None, 0)
        sizes = [prefix, len(row.prompt) - prefix, len(row.completion)]
        if not shared:
            sizes = [prefix, len(row) - prefix, 0]
        new_prompt = not shared or last is None or last.prompt != row.prompt
        new_prefix = last is None or last.prompt[:before] != row.prompt[:prefix]
        new = [int(new_prefix and prefix > 0), int(new_prompt), int(shared)]
        return [(n + more, max(w, size)) for (n, w), more, size in zip(levels, new, sizes, strict=True)]

    for prefix, groups in families:
        for i in itertools.chain.from_iterable(groups):
            after = grown(rows[i], prefix)
            if members and sum(n * w for n, w in after) > budget:
                close()
                after = grown(rows[i], prefix)
            members.append((i, prefix))
            levels = after
    close()
    return packs


def _pack(rows: Sequence[Example], members: list[tuple[int, int]], shared: bool) -> Pack:
    prompts: dict[Tokens, set[Tokens]] = {}
    for i, prefix in members:
        prompts.setdefault(rows[i].prompt[:prefix], set()).add(rows[i].prompt)
    prefixes = tuple(prefix if len(prompts[rows[i].prompt[:prefix]]) > 1 else 0 for i, prefix in members)
    return Pack(tuple(i for i, _ in members), shared, prefixes if any(prefixes) else ())


def common_prefix(one: Tokens, other: Tokens) -> int:
    """Tokens that two prompts have in common at their beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


# How they are laid out --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Level:
    """Nodes of one depth of the tree, for attention padded to the longest: B nodes of at most L tokens.

    A node attends to its ancestors and to itself. `children` says how many nodes of this level each node of the level
    above has; they stand beside each other.
    """

    lengths: np.ndarray  # (B,) tokens of each node
    offset: mx.array  # (B,) int32, tokens of its ancestors: where its rotary positions begin
    children: tuple[int, ...] = ()  # empty at the top

    @property
    def width(self) -> int:
        return max(1, int(self.lengths.max()))


@dataclass(frozen=True, slots=True)
class Tree:
    """How T tokens that stand one after the other become the padded levels of attention, S slots in all, and back."""

    levels: tuple[Level, ...]
    spread: mx.array  # (S,) int32, the token of each slot; padding holds any
    real: mx.array  # (S,) bool, whether the slot holds a token
    gather: mx.array  # (T,) int32, the slot of each token


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch, in one of two layouts.

    Apart: `tokens` (B, T) holds prompt and completion of each row, padded on the right, for trunks that are run as they
    are. Tree: `tokens` (1, T) holds every node once. The last token of a row is a target only. `positions[i]` is the
    flat place in `tokens` whose hidden state predicts `targets[i]`; the arrays below it hold one value for each
    completion token, rows one after the other.
    """

    tokens: mx.array  # int32
    positions: mx.array  # (N,) int32
    targets: mx.array  # (N,) int32
    advantages: mx.array  # (N,) float32
    sampler: mx.array  # (N,) float32
    old: mx.array | None  # (N,) float32
    reference: mx.array | None  # (N,) float32
    tree: Tree | None = None

    @classmethod
    def of(cls, rows: Sequence[Example], pack: Pack) -> Batch:
        """The rows of a pack."""
        chosen = [rows[i] for i in pack.rows]
        return cls.pad(chosen) if pack.apart else cls.planted(chosen, pack.shared, pack.prefixes)

    @classmethod
    def pad(cls, rows: Sequence[Example]) -> Batch:
        """Rows apart, in their order."""
        tokens = _right_pad([(row.prompt + row.completion)[:-1] for row in rows])
        positions = [np.arange(len(row.prompt) - 1, len(row) - 1) + i * tokens.shape[1] for i, row in enumerate(rows)]
        return cls._columns(rows, tokens, positions, None)

    @classmethod
    def planted(cls, rows: Sequence[Example], shared: bool = False, prefixes: Sequence[int] = ()) -> Batch:
        """Rows as a tree, in their order. With `shared`, rows of equal prompts must stand beside each other, and so
        must those of prompts whose beginnings, of `prefixes[i]` tokens, are equal."""
        prefixes = prefixes or [0] * len(rows)
        beginnings = [row.prompt[:length] for row, length in zip(rows, prefixes, strict=True)]
        nodes: list[list[Tokens]] = [[], [], []]
        children: list[list[int]] = [[], [], []]
        ends: list[tuple[int, int]] = []  # of each row: its prompt's node, where the prompt ends in it
        for i, (row, beginning) in enumerate(zip(rows, beginnings, strict=True)):
            new = i == 0 or beginning != beginnings[i - 1]
            if new:
                nodes[0].append(beginning)
                children[1].append(0)
            if new or not shared or row.prompt != rows[i - 1].prompt:
                nodes[1].append(row.prompt[len(beginning) :] + (() if shared else row.completion[:-1]))
                children[1][-1] += 1
                children[2].append(0)
            if shared:
                nodes[2].append(row.completion[:-1])
                children[2][-1] += 1
            ends.append((len(nodes[1]) - 1, len(row.prompt) - len(beginning) - 1))
        depths = [depth for depth, level in enumerate(nodes) if any(level) and (depth != 2 or shared)]
        above: np.ndarray = np.zeros(len(nodes[0]), np.int32)  # tokens of the ancestors
        levels: list[Level] = []
        for depth in range(3):
            if depth:
                above = np.repeat(above + [len(node) for node in nodes[depth - 1]], children[depth]).astype(np.int32)
            if depth in depths:
                lengths = np.array([len(node) for node in nodes[depth]])
                levels.append(Level(lengths, mx.array(above), tuple(children[depth]) if levels else ()))
        starts, spread, real, gather, tokens = [], [], [], [], 0
        slots = 0
        for level in levels:
            begin = tokens + np.concatenate([[0], np.cumsum(level.lengths)])
            starts.append(begin)
            column = np.arange(level.width)
            there = column[None] < level.lengths[:, None]
            spread.append(np.where(there, begin[:-1, None] + column, 0).reshape(-1))
            real.append(there.reshape(-1))
            gather.append(slots + np.flatnonzero(there.reshape(-1)))
            tokens, slots = int(begin[-1]), slots + there.size
        prompt_starts = starts[depths.index(1)]
        positions = []
        for i, (row, (node, end)) in enumerate(zip(rows, ends, strict=True)):
            first = prompt_starts[node] + end
            # The end of the prompt predicts the first completion token, for all rows of the group.
            rest = (starts[depths.index(2)][i] if 2 in depths else first + 1) + np.arange(len(row.completion) - 1)
            positions.append(np.concatenate([[first], rest]))
        tree = Tree(
            tuple(levels), mx.array(np.concatenate(spread).astype(np.int32)), mx.array(np.concatenate(real)),
            mx.array(np.concatenate(gather).astype(np.int32)),
        )  # fmt: skip
        flat = [token for depth in depths for node in nodes[depth] for token in node]
        return cls._columns(rows, np.array([flat], np.int32), positions, tree)

    @classmethod
    def _columns(
        cls, rows: Sequence[Example], tokens: np.ndarray, positions: list[np.ndarray], tree: Tree | None
    ) -> Batch:
        def column(values: Iterable[Any], dtype: Any = np.float32) -> mx.array:
            return mx.array(np.concatenate(list(values)).astype(dtype))

        return cls(
            tokens=mx.array(tokens),
            positions=column(positions, np.int32),
            targets=column((row.completion for row in rows), np.int32),
            advantages=column(np.full(len(row.completion), row.advantage) for row in rows),
            sampler=column(row.sampler for row in rows),
            old=None if rows[0].old is None else column(row.old for row in rows),
            reference=None if rows[0].reference is None else column(row.reference for row in rows),
            tree=tree,
        )

    @property
    def computed(self) -> int:
        """Tokens that pass the products of the trunk, padding included."""
        return int(self.tokens.size)

    @property
    def pairs(self) -> int:
        """Pairs of query and key that attention computes in each head, padding included."""
        if self.tree is None:
            rows, length = map(int, self.tokens.shape)
            return rows * length * length
        total = context = 0
        for level in self.tree.levels:
            total += len(level.lengths) * level.width * (context + level.width)
            context += level.width
        return total

    @property
    def slots(self) -> int:
        """Tokens that pass attention, padding included."""
        return self.computed if self.tree is None else int(self.tree.spread.size)

    def scores(self, longest: int) -> float:
        """Attention weights of one head that are held for the gradient: of levels that have a mask of their own, and
        of those of at most `longest` tokens (a Linux CPU)."""
        if self.tree is None:
            rows, length = map(int, self.tokens.shape)
            return rows * length * length if length <= longest else 0
        total = context = 0
        for level in self.tree.levels:
            if level.width <= longest or (not longest and context):
                total += len(level.lengths) * level.width * (context + level.width)
            context += level.width
        return total

    def part(self, start: int, stop: int) -> tuple[mx.array | None, ...]:
        """Targets, advantages, sampler, old and reference values of completion tokens start..stop."""
        columns = (self.targets, self.advantages, self.sampler, self.old, self.reference)
        return tuple(None if values is None else values[start:stop] for values in columns)


def _right_pad(rows: Sequence[Sequence[int]]) -> np.ndarray:
    padded = np.zeros((len(rows), max(1, *(len(row) for row in rows))), dtype=np.int32)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded
