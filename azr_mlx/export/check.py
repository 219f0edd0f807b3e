"""What the check of an export found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

LEAST_COSINE = 0.99  # least cosine between the logit change of the running policy and that of what was written
# Largest mean KL from what transformers computes of the same files, in float32: rounding gives some 1e-10.
MOST_FOREIGN_KL = 1e-4


@dataclass(frozen=True)
class Foreign:
    """How far a written model is from itself in another implementation.

    kl: mean KL(ours || theirs) per token in nats; largest: difference of a logit; agree: share of equal likeliest
    tokens. name: the implementation with its version.
    """

    name: str
    kl: float
    largest: float
    agree: float

    @property
    def good(self) -> bool:
        return math.isfinite(self.kl + self.largest) and self.kl <= MOST_FOREIGN_KL

    def __str__(self) -> str:
        return (
            f"in {self.name} KL {self.kl:.1e}/token, largest logit difference {self.largest:.1e}, "
            f"{100 * self.agree:.1f} % the same likeliest token"
        )


@dataclass(frozen=True)
class Check:
    """How far what was written, loaded again, is from the running policy, both computed in float32.

    `kl` is the mean over positions of KL(policy || written) in nats; `kl_as_run` the same for the policy in the dtype
    in which it runs (None when that is float32). `cosine` compares the change of the logits that the adapter makes, in
    the policy and in what was written; None when the adapter changes nothing. `effect` is the root mean square of that
    change, `largest` the largest difference of a logit, `agree` the share of positions with the same likeliest token.

    `foreign` is the same model in another implementation; without it all numbers come from ours alone, which may read
    a configuration wrongly on both sides of the comparison.
    """

    prompts: int
    tokens: int
    kl: float
    kl_as_run: float | None
    largest: float
    cosine: float | None
    effect: float
    agree: float
    foreign: Foreign | str = "compared with this package's own implementation only"

    @property
    def good(self) -> bool:
        """Whether what was written is the policy. Without an effect to keep, the KL alone decides."""
        if not math.isfinite(self.kl + self.largest):
            return False
        if isinstance(self.foreign, Foreign) and not self.foreign.good:
            return False
        return self.cosine >= LEAST_COSINE if self.cosine is not None else self.kl < 1e-2

    def words(self) -> str:
        kept = "no effect to keep" if self.cosine is None else f"effect kept {self.cosine:.4f}"
        return f"KL {self.kl:.1e}/token, largest logit difference {self.largest:.1e}, {kept}; {self.foreign}"

    def facts(self) -> dict[str, Any]:
        """The numbers for a manifest; `implementation` says in words what they were compared with."""
        numbers = {name: getattr(self, name) for name in Check.__dataclass_fields__ if name != "foreign"}
        return numbers | {"implementation": str(self.foreign)}
