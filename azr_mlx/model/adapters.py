"""LoRA layers whose outputs can be kept in a forward pass and taken from there when a block is computed again.

Walking back through a block needs the values inside it. All of them take several times the memory of what its
projections gave, and nearly all of the time of computing them again is in these projections (Korthikanti et al. 2022,
"selective recomputation"). So a `Tape` keeps the projections' outputs; a second run of the block on it computes only
what lies between them, and the gradient of a projection needs its input but never its output.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tuner.lora import LoRALinear


class AdaptedLinear(LoRALinear):  # type: ignore[misc]
    """A LoRALinear that writes its outputs to the tape that is running, or reads them from it."""

    def __call__(self, x: mx.array) -> mx.array:
        if _running is None:
            return self.projected(x, self.lora_a, self.lora_b)
        return _running.output(self, x)

    def projected(self, x: mx.array, lora_a: mx.array, lora_b: mx.array) -> mx.array:
        """Inputs (..., I) to outputs (..., O): W x + scale * (x A) B, as mlx_lm computes it."""
        y: mx.array = self.linear(x)
        return y + (self.scale * ((x @ lora_a) @ lora_b)).astype(x.dtype)


def adapt(model: nn.Module) -> list[AdaptedLinear]:
    """Let the LoRA layers of a model know tapes; returns them in the model's order. Names and values stay."""
    found = []
    for _, module in model.named_modules():
        if isinstance(module, LoRALinear):
            object.__setattr__(module, "__class__", AdaptedLinear)
            found.append(module)
    return found


class Tape:
    """Outputs of the adapted projections of one block, in the order of their calls."""

    def __init__(self) -> None:
        self.kept: list[tuple[AdaptedLinear, mx.array]] = []
        self._next: int | None = None  # None while recording
        self._passing = False

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Within it nothing is kept, but gradients are put together as in a replay: what is kept changes no bit."""
        self._passing = True
        with self._run():
            yield
        self._passing = False

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Within it every adapted projection appends its output."""
        self.kept, self._next = [], None
        with self._run():
            yield

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Within it they return what was recorded, in the same order, with the gradient of having computed it."""
        self._next = 0
        with self._run():
            yield

    @contextmanager
    def _run(self) -> Iterator[None]:
        global _running
        before, _running = _running, self
        try:
            yield
        finally:
            _running = before

    def forget_last(self, module: object) -> None:
        """Drop the last output if `module` gave it: for a projection whose output only leaves the block."""
        if self.kept and self.kept[-1][0] is module:
            layer, output = self.kept.pop()
            # Of the same shape and never evaluated.
            self.kept.append((layer, mx.zeros(output.shape, output.dtype)))

    def output(self, layer: AdaptedLinear, x: mx.array) -> mx.array:
        if self._passing:
            return _given(layer, None, x)
        if self._next is None:
            y = layer.projected(x, layer.lora_a, layer.lora_b)
            self.kept.append((layer, y))
            return y
        known, y = self.kept[self._next]
        assert known is layer, "a block that is computed again calls its projections in the same order"
        self._next += 1
        return _given(layer, y, x)


_running: Tape | None = None


def _given(layer: AdaptedLinear, output: mx.array | None, x: mx.array) -> mx.array:
    """`output`, which is what the layer makes of x (None: computed), with the layer's gradient."""

    @mx.custom_function
    def project(x: mx.array, lora_a: mx.array, lora_b: mx.array) -> mx.array:
        return layer.projected(x, lora_a, lora_b) if output is None else output

    @project.vjp
    def gradient(primals: tuple[mx.array, ...], cotangent: mx.array, outputs: mx.array) -> tuple[mx.array, ...]:
        _, by = mx.vjp(layer.projected, list(primals), [cotangent])  # whose own outputs nobody reads: never evaluated
        return tuple(by)

    return project(x, layer.lora_a, layer.lora_b)
