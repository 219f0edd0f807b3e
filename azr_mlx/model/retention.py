"""What each micro-batch keeps of its forward pass, by the memory that is free, and what an update computed.

The first choice is by the formulas of held.py. How much a micro-batch really held is measured each time, and where the
formulas said too little, later choices allow for it. What is kept changes the time and not the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mlx.utils import tree_flatten

from azr_mlx.model import device
from azr_mlx.model.adapters import AdaptedLinear
from azr_mlx.model.backbone import Backbone
from azr_mlx.model.flops import Dimensions
from azr_mlx.model.held import AUTO_SHARES, Keep, Pass, Sizes, activation_bytes
from azr_mlx.model.limits import KEPT_LENGTH
from azr_mlx.model.packing import Batch


@dataclass
class Retention:
    """Chooses for one model on one machine."""

    sizes: Sizes
    gradients: int  # bytes of the gradients of all adapters
    dimensions: Dimensions
    ratio: float = 1.0  # most that was held beyond what the formulas say
    # Since `reset`:
    used: dict[Keep, int] = field(default_factory=dict)  # micro-batches by what they kept
    again: float = 0.0  # operations that were computed a second time
    peak: int = 0  # bytes

    def reset(self) -> None:
        """An update begins."""
        self.used, self.again, self.peak = {}, 0.0, 0
        device.reset_peak()

    def choose(self, batch: Batch, room: int, active: int) -> Keep:
        """The most that fits into its share of `room` bytes, of which `active` are taken."""
        one = self.described(batch)
        for keep, share in AUTO_SHARES.items():
            needed = self.ratio * (activation_bytes(self.sizes, one, keep) + 2 * self.gradients)
            if needed + active <= share * room:
                return keep
        return Keep.INPUTS

    @contextmanager
    def holding(self, batch: Batch, told: Keep | None) -> Iterator[Keep]:
        """What to keep of a micro-batch that is computed within the block, whose memory is measured."""
        start = device.memory()
        self.peak = max(self.peak, start.peak)
        keep = told or self.choose(batch, device.room(), start.active)
        device.reset_peak()
        yield keep
        peak = device.memory().peak
        expected = activation_bytes(self.sizes, self.described(batch), keep) + 2 * self.gradients
        self.ratio = max(self.ratio, (peak - start.active) / expected)
        self.peak = max(self.peak, peak)
        self.used[keep] = self.used.get(keep, 0) + 1
        self.again += self.dimensions.again(batch.computed, batch.pairs, keep)

    def described(self, batch: Batch) -> Pass:
        """A micro-batch as far as memory goes."""
        masked = batch.tree is not None and len(batch.tree.levels) > 1
        scores = batch.scores(0 if self.sizes.packed else KEPT_LENGTH)
        return Pass(batch.computed, scores, int(batch.targets.size), masked)


def retention_of(backbone: Backbone, packed: bool, activation: int) -> Retention:
    """For a plain model; `activation`: bytes of a number. Sizes are those of the last block."""
    layer: Any = backbone.layers[-1]
    attention, mlp = layer.self_attn, layer.mlp
    adapted = [module for _, module in layer.named_modules() if isinstance(module, AdaptedLinear)]
    outputs = sum(int(one.lora_b.shape[1]) for one in adapted if one is not mlp.down_proj)
    width, gate, queries, keys = backbone.width, *map(_outputs, (mlp.gate_proj, attention.q_proj, attention.k_proj))
    sizes = Sizes(
        len(backbone.layers), width, gate, queries, keys, attention.n_heads,
        int(adapted[0].lora_a.shape[1]) if adapted else 0, outputs, backbone.vocabulary, activation, packed,
    )  # fmt: skip
    block = width * (queries + 2 * keys) + queries * width + 3 * width * gate
    adapters = sum(value.size for _, value in tree_flatten(backbone.model.trainable_parameters()))
    dimensions = Dimensions(sizes.layers * block, adapters, sizes.vocabulary * width, queries, sizes.layers)
    return Retention(sizes, 4 * adapters, dimensions)


def _outputs(module: Any) -> int:
    """Outputs of a linear layer, adapted or not, quantized or not."""
    return int((module.linear if isinstance(module, AdaptedLinear) else module).weight.shape[0])
