"""Floating-point operations of what a step computes, counted from the shapes of its products. Plain arithmetic.

The program counts its own steps with these formulas, from the tokens that it computes, and `azr plan` counts steps that
have not been made with the same ones, from lengths that it expects. A multiplication and an addition are two
operations. Elementwise work is not counted: it has no products.
"""

from __future__ import annotations

from dataclasses import dataclass

from azr_mlx.model.held import Keep


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Sizes of a model's products."""

    matrices: int  # parameters of the blocks' matrices
    adapters: int  # parameters of the adapters beside them; 0 where they are merged into the matrices
    table: int  # parameters of the head: vocabulary x width
    queries: int  # numbers of all query heads of a token
    layers: int

    def forward(self, tokens: float, pairs: float) -> float:
        """The trunk: `tokens` that pass the matrices, `pairs` of a query and a key in each head."""
        return 2 * (self.matrices + self.adapters) * tokens + 4 * pairs * self.queries * self.layers

    def head(self, tokens: float) -> float:
        """Logits of so many positions."""
        return 2 * self.table * tokens

    def gradient(self, tokens: float, pairs: float, completions: float) -> float:
        """Forward and backward with nothing computed again. The base is frozen: matrices have a gradient by their
        inputs only, adapters by their weights as well, attention by queries, keys and values."""
        matrices = 4 * self.matrices * tokens + 6 * self.adapters * tokens
        return matrices + 12 * pairs * self.queries * self.layers + 2 * self.head(completions)

    def again(self, tokens: float, pairs: float, keep: Keep) -> float:
        """What the backward pass computes a second time."""
        if keep is Keep.ALL:
            return 0.0
        if keep is Keep.PROJECTIONS:  # attention, and what a LoRA layer's first matrix gives
            return self.adapters * tokens + 4 * pairs * self.queries * self.layers
        return self.forward(tokens, pairs)
