"""What the check of an export found."""

from __future__ import annotations

import math
from dataclasses import dataclass

LEAST_COSINE = 0.99  # least cosine between the logit change of the running policy and that of what was written


@dataclass(frozen=True)
class Check:
    """How far what was written, loaded again, is from the running policy, both computed in float32.

    `kl` is the mean over positions of KL(policy || written) in nats; `kl_as_run` the same for the policy in the dtype
    in which it runs (None when that is float32). `cosine` compares the change of the logits that the adapter makes, in
    the policy and in what was written; None when the adapter changes nothing. `effect` is the root mean square of that
    change, `largest` the largest difference of a logit, `agree` the share of positions with the same likeliest token.
    """

    prompts: int
    tokens: int
    kl: float
    kl_as_run: float | None
    largest: float
    cosine: float | None
    effect: float
    agree: float

    @property
    def good(self) -> bool:
        """Whether what was written is the policy. Without an effect to keep, the KL alone decides."""
        if not math.isfinite(self.kl + self.largest):
            return False
        return self.cosine >= LEAST_COSINE if self.cosine is not None else self.kl < 1e-2

    def words(self) -> str:
        kept = "no effect to keep" if self.cosine is None else f"effect kept {self.cosine:.4f}"
        return f"KL {self.kl:.1e}/token, largest logit difference {self.largest:.1e}, {kept}"
