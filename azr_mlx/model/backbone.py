"""A language model of mlx_lm in two parts: the trunk, tokens to hidden states, and the head, hidden states to logits.

The split is what lets the sampler run the head on the last position only, and the loss run it on a few rows at a time.
Letters: B rows, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import ArraysCache, BatchKVCache, KVCache, RotatingKVCache, make_prompt_cache

# How far logits may be apart before they count as others, as a share of the largest: bfloat16 keeps 8 bits.
SAME = 0.05
LONGEST_TRIAL = 2048  # tokens of the trial of a model with a sliding window; a longer window than that is not reached


class Backbone:
    """Views of one model of mlx_lm; it holds no weights of its own.

    `plain` says that the trunk is embedding, equal blocks `block(h, mask, cache)` and a norm (Qwen 2 and 3, Llama), so
    that the loss may walk through the blocks itself. Hybrids (Qwen 3.5) run through their own trunk.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        owner = model
        while not hasattr(owner, "model"):
            if not hasattr(owner, "language_model"):
                raise TypeError(f"{type(model).__module__} is not a decoder that mlx_lm lays out as model.layers")
            owner = owner.language_model
        self.trunk: Any = owner.model
        self._lm_head = getattr(owner, "lm_head", None)
        self.layers: list[nn.Module] = list(self.trunk.layers)
        self.plain = type(model).__module__.rsplit(".", 1)[-1] in ("qwen2", "qwen3", "llama") and not getattr(
            self.trunk, "swa_idx", None
        )

    @property
    def vocabulary(self) -> int:
        """V: rows of the embedding, which may exceed what the tokenizer knows."""
        return int(self.trunk.embed_tokens.weight.shape[0])

    @property
    def width(self) -> int:
        """D: numbers of a hidden state."""
        return int(self.trunk.norm.weight.shape[0])

    def hidden(self, tokens: mx.array, cache: Sequence[Any] | None = None) -> mx.array:
        """Tokens (B, T) to final hidden states (B, T, D), after the last norm."""
        return self.trunk(tokens, cache=cache)

    def logits(self, hidden: mx.array) -> mx.array:
        """Hidden states (..., D) to float32 logits (..., V), through a tied or an own head."""
        if self._lm_head is not None:
            return self._lm_head(hidden).astype(mx.float32)
        return self.trunk.embed_tokens.as_linear(hidden).astype(mx.float32)

    def empty_cache(self, rows: int) -> list[Any]:
        """A cache of every layer for `rows` sequences of different lengths.

        Only caches that never forget are taken. A layer with a sliding window, for which mlx_lm has a rotating cache,
        keeps everything as well, and the model's mask of that window decides what is seen: `difference` looks whether
        it does. Raises TypeError for a cache of another kind.
        """
        caches = [KVCache() if self._slides(cache) else cache for cache in make_prompt_cache(self.model)]
        for cache in caches:
            if not isinstance(cache, KVCache | ArraysCache):
                raise TypeError(f"{type(cache).__name__} is not a cache that keeps the whole context")
        return [cache.merge([cache] * rows) for cache in caches]

    @staticmethod
    def _slides(cache: Any) -> bool:
        return isinstance(cache, RotatingKVCache) and not cache.keep

    def difference(self) -> str:
        """What this view computes otherwise than the model itself, in words; empty when nothing.

        A model may scale or cap its logits, or treat a window in a way of its own; then trunk, head and cache as they
        are used here would silently be another model. Tried on a few tokens, with a window on more than it holds.
        """
        windows = [cache.max_size for cache in make_prompt_cache(self.model) if self._slides(cache)]
        length = max((window for window in windows if window + 8 <= LONGEST_TRIAL), default=0) + 8
        tokens = ((mx.arange(length) * 7 + 1) % self.vocabulary)[None]
        expected = self.model(tokens)[:, -3:].astype(mx.float32)
        if not self._same(expected, self.logits(self.hidden(tokens)[:, -3:])):
            return "its output is not what its last hidden state and its output matrix give (it may scale or cap them)"
        cache = self.empty_cache(2)
        rows = mx.repeat(tokens, 2, axis=0)
        self.hidden(rows[:, :-3], cache)
        steps = [self.logits(self.hidden(rows[:, i : i + 1], cache)) for i in range(length - 3, length)]
        if not self._same(expected, mx.concatenate(steps, axis=1)[1:]):
            return "token by token, with its keys and values kept, it says something else than at once"
        return ""

    @staticmethod
    def _same(expected: mx.array, found: mx.array) -> bool:
        """Whether logits (1, T, V) are the same up to rounding at one position at least: where a router chooses between
        experts that are nearly alike, rounding may choose otherwise."""
        gap = mx.abs(expected - found).max(axis=-1) / mx.abs(expected).max(axis=-1)
        return bool((gap.min() <= SAME).item())

    def columns(self, cache: Sequence[Any]) -> tuple[int, int]:
        """Tokens of the longest row of a batch's cache, padding included, and tokens that each row has room for."""
        for layer in cache:
            if isinstance(layer, BatchKVCache) and layer.keys is not None:
                return layer._idx, layer.keys.shape[2]
        return 0, 0

    def cache_bytes(self) -> tuple[int, int]:
        """Bytes of cache (per token of one row, per row whatever its length)."""
        caches = self.empty_cache(1)
        self.hidden(mx.zeros((1, 1), dtype=mx.int32), caches)
        per_token = per_row = 0
        for cache in caches:
            if isinstance(cache, BatchKVCache):
                per_token += cache.nbytes // cache.keys.shape[2]
            else:
                per_row += cache.nbytes
        return per_token, per_row
