"""Batched decoding with continuous batching, one prefill per prompt, keyed sampling and exact log-probabilities.

Rows of different prompts and ages decode together. Each distinct prompt is prefilled once and forked to its rows;
an instruction part that many prompts share is prefilled once for all of them. A row that ends leaves; waiting rows
take the room. The draw of every token is keyed by (seed, request, position): what a row says does not depend on the
rows beside it, up to the rounding of matmuls of another shape.

Sampling inverts the cumulative distribution with keyed uniforms rather than adding Gumbel noise to V logits: one
random number a token instead of V, and the exponentials serve the log-probability too. Large vocabularies are
searched in two levels, a block and then a token of it, so that the cumulative sums are short.

Letters: B rows, T tokens, V vocabulary. Logarithms are natural.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np

from azr_mlx.model.backbone import Backbone
from azr_mlx.model.cpu_kernels import exp
from azr_mlx.model.limits import CACHE_STEP, PREFILL_TOKENS
from azr_mlx.types import Stop

# A batch is compacted when this share of its rows has ended (or when rows wait for room): leaving costs a copy of all
# keys and values, a dead row costs its share of every step.
DEAD_SHARE = 1 / 8
# Waiting rows join when this share of the widest batch is free, so that a prefill is not paid for every row that ends.
FREE_SHARE = 1 / 8
# A shared prefix is computed by itself when it is at least this long; its length is a multiple of this.
SHORTEST_PREFIX = 32
# Shared prefixes that are remembered from one call to the next, while the weights are the same.
MOST_PREFIXES = 12


StopText = Callable[[Sequence[int]], bool]  # whether a row's last token completed a text that ends it


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to write. `key` names it among all requests of a call: its samples depend on nothing else."""

    prompt: tuple[int, ...]
    key: tuple[int, ...]
    max_tokens: int
    stop: tuple[str, ...] = ()  # texts that end it, beside those of the call

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("a prompt needs at least one token")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}, a completion needs at least one token")


@dataclass(frozen=True, slots=True)
class Finished:
    """A written completion: T token ids (an end token is the last), their log-probabilities, and why it ended."""

    key: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    stop: Stop


@dataclass(slots=True)
class Count:
    """What a call computed, for reports: tokens through the trunk in prefill and decode, and those asked for."""

    requests: int = 0
    prompt_tokens: int = 0  # sum of prompt lengths over requests
    prefill_tokens: int = 0  # prompt tokens that were computed, padding included
    prefills: int = 0  # rows that they were computed in
    prefill_pairs: int = 0  # pairs of query and key in a head that they are, padding included
    decode_steps: int = 0
    decode_rows: int = 0  # sum of batch widths over steps, ended rows included
    decode_pairs: int = 0  # keys that those rows attended to, padding included
    tile_rows: int = 0  # the same with every width rounded up to whole tiles: what products with the weights compute
    new_tokens: int = 0
    widest: int = 0


@dataclass(slots=True)
class _Row:
    request: Request
    salt: int  # 64-bit key of the row's draws
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    drawn: int = 0  # tokens drawn on the device, at most one more than `tokens`
    ended: bool = False


@dataclass(frozen=True, slots=True)
class _Node:
    """A prefix that several prompts share: its cache of one row, and the path of prefixes that it was computed on."""

    depth: int
    cache: list[Any] | None
    key: tuple[tuple[int, ...], ...] = ()


Prefixes = dict[tuple[tuple[int, ...], ...], _Node]


def generate(
    model: Any,
    requests: Iterable[Request],
    *,
    seed: Sequence[int],
    max_rows: int = 64,
    kv_bytes: int = 0,
    stop_tokens: Iterable[int] = (),
    stop_text: StopText | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    count: Count | None = None,
    prefixes: Prefixes | None = None,
    tile: int = 1,
) -> Iterator[Finished]:
    """Write a completion for every request and yield each as it ends, in any order.

    seed: words that, with `Request.key` and the position, key every draw.
    max_rows: rows decoded together. kv_bytes: bound on keys and values in bytes (0: none); rows wait for room, and a
        single row is always admitted. stop_tokens end a row and are kept as its last token (Stop.EOS).
    stop_text: called with the row's tokens after each one; True ends the row (Stop.TEXT).
    temperature: 0 is greedy. The log-probabilities returned are those of the distribution sampled from, after
        temperature and top_p; greedy rows carry those of the model at temperature 1.
    prefixes: a dictionary in which prefixes that prompts share are remembered between calls; the caller empties it
        when the weights change. What a row says does not depend on what is in it.
    tile: rows that cost the same as one in a product with the weights. While rows wait, the batch holds whole tiles,
        and rows that have ended leave as soon as that saves one. 1 where every row costs its share.
    """
    decoder = Decoder(
        model, seed=seed, max_rows=max_rows, kv_bytes=kv_bytes, stop_tokens=stop_tokens, stop_text=stop_text,
        temperature=temperature, top_p=top_p, count=count, prefixes=prefixes, tile=tile,
    )  # fmt: skip
    decoder.add(requests)
    while decoder.busy:
        yield from decoder.step()


class Decoder:
    """Rows being written. `add` may be called between steps; `step` writes one token of every live row.

    stop_texts: what makes a `stop_text` of a request's own texts.
    """

    def __init__(
        self,
        model: Any,
        *,
        seed: Sequence[int],
        max_rows: int = 64,
        kv_bytes: int = 0,
        stop_tokens: Iterable[int] = (),
        stop_text: StopText | None = None,
        stop_texts: Callable[[tuple[str, ...]], StopText | None] | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        count: Count | None = None,
        prefixes: Prefixes | None = None,
        tile: int = 1,
    ) -> None:
        if max_rows < 1:
            raise ValueError(f"max_rows is {max_rows}, at least 1 is needed")
        if temperature < 0:
            raise ValueError(f"temperature is {temperature}, it cannot be negative")
        if tile < 1:
            raise ValueError(f"tile is {tile}, at least 1 is needed")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p is {top_p}, it lies in (0, 1]")
        self.backbone = model if isinstance(model, Backbone) else Backbone(model)
        self.seed = tuple(seed)
        self.max_rows = max_rows
        self.tile = tile
        self.kv_bytes = kv_bytes
        self.token_bytes, self.row_bytes = self.backbone.cache_bytes() if kv_bytes else (0, 0)
        self.stop_tokens = frozenset(stop_tokens)
        self.stop_text = stop_text
        self.stop_texts = stop_texts
        self._own_stops: dict[tuple[str, ...], StopText | None] = {}
        self.temperature = temperature
        self.top_p = top_p
        self.count = count if count is not None else Count()
        self.prefixes: Prefixes = prefixes if prefixes is not None else {}
        self.waiting: list[Request] = []
        self.rows: list[_Row] = []
        self.cache: list[Any] = []
        self.tokens: mx.array | None = None  # (B,) drawn last, not yet read by the host
        self.logprobs: mx.array | None = None  # (B,)

    @property
    def busy(self) -> bool:
        return bool(self.rows or self.waiting)

    def add(self, requests: Iterable[Request]) -> None:
        """Queue requests. Long ones start first, so that the end of a call is not one row decoding alone."""
        for request in requests:
            self.waiting.append(request)
            self.count.requests += 1
            self.count.prompt_tokens += len(request.prompt)
        # Equal prompts stay together: they are prefilled once. Python's sort is stable and looks at nothing but the
        # requests, so the order, and with it every batch, is the same in a repeated run.
        self.waiting.sort(key=lambda r: (-r.max_tokens, -len(r.prompt), r.prompt))

    def step(self) -> list[Finished]:
        """Admit waiting rows if there is room, write one token of every row, and return the rows that ended."""
        self._join()
        # The next step is launched before the host looks at the tokens of this one: device and host work side by side,
        # and a row that has just ended decodes one token in vain.
        tokens, logprobs = self.tokens, self.logprobs
        assert tokens is not None
        assert logprobs is not None
        width = len(self.rows)
        if any(row.drawn < row.request.max_tokens and not row.ended for row in self.rows):
            self._launch()
        finished = []
        for row, token, logprob in zip(self.rows[:width], tokens.tolist(), logprobs.tolist(), strict=True):
            if row.ended:
                continue
            row.tokens.append(token)
            row.logprobs.append(logprob)
            self.count.new_tokens += 1
            stop = self._stop(row, token)
            if stop is not None:
                row.ended = True
                finished.append(Finished(row.request.key, tuple(row.tokens), tuple(row.logprobs), stop))
        self._leave()
        return finished

    def _stop(self, row: _Row, token: int) -> Stop | None:
        if token in self.stop_tokens:
            return Stop.EOS
        if any(ends is not None and ends(row.tokens) for ends in (self.stop_text, self._own_stop(row.request.stop))):
            return Stop.TEXT
        if len(row.tokens) >= row.request.max_tokens:
            return Stop.LENGTH
        return None

    def _own_stop(self, texts: tuple[str, ...]) -> StopText | None:
        if not texts or self.stop_texts is None:
            return None
        if texts not in self._own_stops:
            self._own_stops[texts] = self.stop_texts(texts)
        return self._own_stops[texts]

    # Decoding ---------------------------------------------------------------------------------------------------

    def _launch(self) -> None:
        """Draw the next token of every row; the result is computed in the background."""
        assert self.tokens is not None
        self.count.decode_pairs += len(self.rows) * (self.backbone.columns(self.cache)[0] + 1)
        hidden = self.backbone.hidden(self.tokens[:, None], self.cache)
        self.tokens, self.logprobs = self._draw(self.backbone.logits(hidden[:, -1]), self.rows)
        mx.async_eval(self.tokens, self.logprobs)
        self.count.decode_steps += 1
        self.count.decode_rows += len(self.rows)
        self.count.tile_rows += self._tiles(len(self.rows)) * self.tile
        self.count.widest = max(self.count.widest, len(self.rows))

    def _draw(self, logits: mx.array, rows: list[_Row]) -> tuple[mx.array, mx.array]:
        """Logits (B, V) to tokens (B,) and log-probabilities (B,); advances the rows' positions."""
        uniforms = None
        if self.temperature > 0:
            salts = np.array([row.salt for row in rows], dtype=np.uint64)
            positions = np.array([row.drawn for row in rows], dtype=np.uint64)
            uniforms = mx.array(keyed_uniforms(salts, positions))
        for row in rows:
            row.drawn += 1
        return draw_tokens(logits, uniforms, self.temperature, self.top_p)

    def _leave(self) -> None:
        """Take ended rows out of the batch when enough have ended."""
        live = [i for i, row in enumerate(self.rows) if not row.ended]
        ended = len(self.rows) - len(live)
        saves_tile = self.tile > 1 and self._tiles(len(live)) < self._tiles(len(self.rows))
        if ended and (saves_tile or ended >= DEAD_SHARE * len(self.rows) or self._admissible(len(live))):
            self._keep(live)

    def _tiles(self, rows: int) -> int:
        return -(-rows // self.tile)

    def _keep(self, live: list[int]) -> None:
        """Drop all rows of the batch but these."""
        if not live:
            self.rows, self.cache, self.tokens, self.logprobs = [], [], None, None
            return
        keep = mx.array(live, dtype=mx.int32)
        for cache in self.cache:
            cache.filter(keep)
        self.rows = [self.rows[i] for i in live]
        assert self.tokens is not None
        assert self.logprobs is not None
        self.tokens, self.logprobs = self.tokens[keep], self.logprobs[keep]

    # Prefill ----------------------------------------------------------------------------------------------------

    def _admissible(self, live: int) -> int:
        """How many of the waiting requests may join `live` rows now."""
        if not self.waiting:
            return 0
        free = self.max_rows - live
        if live and free < min(max(1, math.ceil(FREE_SHARE * self.max_rows)), len(self.waiting)):
            return 0
        number = min(free, len(self.waiting))
        if self.kv_bytes:
            while number:
                columns = self._columns(self.waiting[:number])
                if (live + number) * (columns * self.token_bytes + self.row_bytes) <= self.kv_bytes:
                    break
                number -= 1
            if not live:
                number = max(number, 1)
        if self.tile < live + number and number < len(self.waiting):
            number = max(0, number - (live + number) % self.tile)  # the rest of a tile is for rows that wait longer
        return number

    def _columns(self, joining: list[Request]) -> int:
        """At most how many tokens each row of the batch will have room for when `joining` have joined it.

        All rows end at the same column: a short row beside a long one is padded on the left, and one that joins late
        goes on where the longest of the others stands. Room comes in steps.
        """
        used, room = self.backbone.columns(self.cache)
        start = max(used, *(len(request.prompt) for request in joining))
        left = [row.request.max_tokens - len(row.tokens) for row in self.rows if not row.ended]
        return max(room, start + max([*left, *(request.max_tokens for request in joining)]) + CACHE_STEP)

    def _join(self) -> None:
        """Prefill waiting requests and add their rows, with a first token drawn, to the batch."""
        live = [i for i, row in enumerate(self.rows) if not row.ended]
        number = self._admissible(len(live))
        if not number:
            return
        if len(live) < len(self.rows):
            self._keep(live)
        batch, self.waiting = self.waiting[:number], self.waiting[number:]
        for chunk in self._chunks(batch):
            rows = [_Row(request, _salt(self.seed, request.key)) for request in chunk]
            cache, logits = self._prefill([row.request.prompt for row in rows])
            tokens, logprobs = self._draw(logits, rows)
            mx.async_eval(tokens, logprobs)
            if self.rows:
                assert self.tokens is not None
                assert self.logprobs is not None
                for mine, theirs in zip(self.cache, cache, strict=True):
                    mine.extend(theirs)
                tokens = mx.concatenate([self.tokens, tokens])
                logprobs = mx.concatenate([self.logprobs, logprobs])
            else:
                self.cache = cache
            self.tokens, self.logprobs = tokens, logprobs
            self.rows = [*self.rows, *rows]

    def _chunks(self, batch: list[Request]) -> Iterator[list[Request]]:
        """Split requests so that one prefill computes at most PREFILL_TOKENS, keeping equal prompts together."""
        chunk: list[Request] = []
        prompts: set[tuple[int, ...]] = set()
        longest = 0
        for request in batch:
            width = max(longest, len(request.prompt))
            if chunk and request.prompt not in prompts and (len(prompts) + 1) * width > PREFILL_TOKENS:
                yield chunk
                chunk, prompts, width = [], set(), len(request.prompt)
            chunk.append(request)
            prompts.add(request.prompt)
            longest = width
        if chunk:
            yield chunk

    def _prefill(self, prompts: list[tuple[int, ...]]) -> tuple[list[Any], mx.array]:
        """Caches of all rows, and the logits (B, V) that follow each prompt; every distinct prompt is computed once."""
        distinct = sorted(set(prompts))
        nodes = list(self._share(distinct, _Node(0, None)))
        cache: list[Any] | None = None
        for node, members in nodes:
            forked = self._fork(node, len(members))
            if cache is None:
                cache = forked
            else:
                for mine, theirs in zip(cache, forked, strict=True):
                    mine.extend(theirs)
        assert cache is not None
        ordered = [(prompt, node.depth) for node, members in nodes for prompt in members]
        hidden = self._forward([prompt[depth:] for prompt, depth in ordered], cache)
        logits = self.backbone.logits(hidden)
        place = {prompt: i for i, (prompt, _) in enumerate(ordered)}
        fork = [place[prompt] for prompt in prompts]
        if fork != list(range(len(ordered))):
            rows = mx.array(fork, dtype=mx.int32)
            for layer in cache:
                layer.filter(rows)
            logits = logits[rows]
        return cache, logits

    def _share(self, prompts: list[tuple[int, ...]], node: _Node) -> Iterator[tuple[_Node, list[tuple[int, ...]]]]:
        """Split sorted distinct prompts that all begin with `node` into (longest shared prefix, its prompts)."""
        apart, start = [], 0
        for end in range(1, len(prompts) + 1):
            if end < len(prompts) and self._depth(prompts[end - 1 : end + 1]) >= node.depth + SHORTEST_PREFIX:
                continue
            cluster = prompts[start:end]
            start = end
            if len(cluster) == 1:
                apart += cluster
            else:
                depth = self._depth(cluster)
                yield from self._share(cluster, self._extend(node, cluster[0][:depth]))
        if apart:
            yield node, apart

    def _depth(self, prompts: Sequence[tuple[int, ...]]) -> int:
        """Tokens of a common prefix, in whole steps: the same prefix then comes back in other calls, and is found.

        At least one token of each prompt is left to compute, for its hidden state gives the first logits.
        """
        return min(_common_prefix(prompts), min(map(len, prompts)) - 1) // SHORTEST_PREFIX * SHORTEST_PREFIX

    def _extend(self, node: _Node, prefix: tuple[int, ...]) -> _Node:
        """The node of a longer prefix: remembered, or computed from its parent."""
        key = (*node.key, prefix)
        found = self.prefixes.get(key)
        if found is None:
            cache = self._fork(node, 1)
            self._forward([prefix[node.depth :]], cache)
            mx.eval([layer.state for layer in cache])
            found = _Node(len(prefix), cache, key)
            self.prefixes[key] = found
            if len(self.prefixes) > MOST_PREFIXES:
                del self.prefixes[next(iter(self.prefixes))]
        return found

    def _fork(self, node: _Node, rows: int) -> list[Any]:
        """A cache of `rows` sequences that all begin with a node's prefix; the node keeps its own."""
        if node.cache is None:
            return self.backbone.empty_cache(rows)
        forked = [copy.copy(layer) for layer in node.cache]
        for layer in forked:
            layer.filter(mx.zeros((rows,), dtype=mx.int32))  # makes new arrays, so that writing leaves the node alone
        return forked

    def _forward(self, rows: Sequence[Sequence[int]], cache: list[Any]) -> mx.array:
        """Run token rows through the trunk on top of a cache; the hidden states (B, D) of their last tokens.

        Rows are padded on the right for the pass, which the cache then undoes. Long ones pass in pieces.
        """
        lengths = [len(row) for row in rows]
        longest = max(lengths)
        padding = [longest - length for length in lengths]
        if any(padding):
            for layer in cache:
                layer.prepare(lengths=lengths, right_padding=padding)
        padded = np.zeros((len(rows), longest), dtype=np.int32)
        for i, row in enumerate(rows):
            padded[i, : len(row)] = row
        self.count.prefill_tokens += padded.size
        self.count.prefill_pairs += padded.size * (self.backbone.columns(cache)[0] + longest)
        self.count.prefills += len(rows)
        tokens, piece = mx.array(padded), max(1, PREFILL_TOKENS // len(rows))
        parts = []
        for start in range(0, longest, piece):
            parts.append(self.backbone.hidden(tokens[:, start : start + piece], cache))
            if longest > piece:
                mx.eval(parts[-1], [layer.state for layer in cache])
        if any(padding):
            for layer in cache:
                layer.finalize()
        hidden = parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=1)
        return hidden[mx.arange(len(rows)), mx.array(lengths) - 1]


def draw_tokens(
    logits: mx.array, uniforms: mx.array | None, temperature: float, top_p: float
) -> tuple[mx.array, mx.array]:
    """Draw one token of each row of float32 logits (B, V); returns tokens (B,) and their log-probabilities (B,).

    uniforms: (B, 2) in [0, 1), or None for greedy decoding. The log-probability is of the distribution drawn from.
    """
    rows, size = logits.shape
    if uniforms is None:
        tokens = mx.argmax(logits, axis=-1)
        chosen = mx.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
        return tokens, chosen - mx.logsumexp(logits, axis=-1)
    if temperature != 1.0:
        logits = logits * (1.0 / temperature)
    weights = exp(logits - mx.max(logits, axis=-1, keepdims=True))  # (B, V), the largest is 1
    if top_p < 1.0:
        weights = _nucleus(weights, top_p)
    block = _block(size)
    if block is None:
        tokens, total = _invert(weights, uniforms[:, :1])
    else:
        blocks = weights.reshape(rows, size // block, block)
        which, total = _invert(blocks.sum(axis=-1), uniforms[:, :1])
        inside = mx.take_along_axis(blocks, which[:, None, None], axis=1)[:, 0]  # (B, block)
        tokens = which * block + _invert(inside, uniforms[:, 1:])[0]
    chosen = mx.take_along_axis(weights, tokens[:, None], axis=-1)[:, 0]
    return tokens, mx.log(chosen / total)


def _invert(weights: mx.array, uniform: mx.array) -> tuple[mx.array, mx.array]:
    """First index whose cumulative weight exceeds uniform * total: weights (B, N), uniform (B, 1) -> (B,), totals (B,).

    An index of weight 0 is never chosen, whatever the rounding of the sums.
    """
    sums = mx.cumsum(weights, axis=-1)
    total = sums[:, -1:]
    beyond = (sums > uniform * total) & (weights > 0)
    return mx.argmax(beyond, axis=-1).astype(mx.int32), total[:, 0]


def _nucleus(weights: mx.array, top_p: float) -> mx.array:
    """Zero all but the smallest set of largest weights (B, V) that holds the share top_p; ties at the edge stay."""
    ordered = -mx.sort(-weights, axis=-1)
    before = mx.cumsum(ordered, axis=-1) - ordered
    inside = before < top_p * weights.sum(axis=-1, keepdims=True)
    edge = mx.min(mx.where(inside, ordered, mx.inf), axis=-1, keepdims=True)
    return mx.where(weights >= edge, weights, 0.0)


def _block(size: int) -> int | None:
    """The divisor of V nearest to its square root, for a search in two levels; None searches V in one."""
    if size <= 2048:
        return None
    root = math.isqrt(size)
    for distance in range(root):
        for candidate in (root - distance, root + distance):
            if size % candidate == 0:
                return candidate if 16 <= candidate <= size // 16 else None
    return None


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele, Lea and Flood 2014): a bijection of 64 bits that avalanches."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed


def _salt(seed: Sequence[int], key: Sequence[int]) -> int:
    """One 64-bit key for all draws of a request, from the words of the seed and of its key."""
    state = np.zeros(1, dtype=np.uint64)
    for word in (len(seed), *seed, *key):
        state = _mix((state ^ np.array([word % 2**64], dtype=np.uint64)) + _GOLDEN)
    return int(state[0])


def keyed_uniforms(salts: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Two uniform float32 numbers in [0, 1) for each (salt, position): (B,), (B,) -> (B, 2).

    A counter-based generator: the numbers are a function of key and position alone. 23 bits, so that a product with
    a total stays below the total after rounding.
    """
    bits = _mix(salts ^ _mix(positions * _GOLDEN + _GOLDEN))
    first = (bits >> np.uint64(41)).astype(np.float32)
    second = ((bits >> np.uint64(9)) & np.uint64(0x7FFFFF)).astype(np.float32)
    return np.stack([first, second], axis=-1) * np.float32(2.0**-23)


def _common_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Length of the longest prefix that all prompts share."""
    low, high = min(prompts), max(prompts)  # the lexicographic extremes differ first where any two do
    for i, (a, b) in enumerate(zip(low, high, strict=False)):
        if a != b:
            return i
    return min(len(low), len(high))
