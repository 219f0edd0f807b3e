"""Rotary position embeddings (RoPE, Su et al. 2021) as a config.json describes them, brought to what mlx_lm reads.

There are two ways to write them. Up to version 4, transformers wrote `rope_theta` and `rope_scaling` side by side;
version 5 writes one mapping `rope_parameters` (in some models one for each type of layer). mlx_lm reads the old way in
most of its models, the new way in a few, and ignores what it does not read: a model whose scaling is lost this way
still writes fluent text and is wrong. So both ways are read here as transformers reads them, and what mlx_lm computes
otherwise, or not at all, is refused by name. tests/model/test_rope.py compares the logits.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from azr_mlx.errors import AzrError

DEFAULT_THETA = 10_000.0  # of transformers, in every model that is trained here
NAMES = ("rope_theta", "rope_scaling", "rope_parameters")
# What each form must say, beside its factor.
_NEEDED: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"),
    "proportional": (),
}
# Other names of the same form: mrope has three axes of positions, which are equal in text.
_ALIASES = {"su": "longrope", "mrope": "default"}


class UnknownRope(AzrError):
    """A form of position embeddings that cannot be computed here as transformers computes it."""


@dataclass(frozen=True, slots=True)
class Rope:
    """One form of rotary embeddings.

    kind: a key of transformers' ROPE_INIT_FUNCTIONS, or "default". parameters: what else it says (`factor`, ...),
    without `rope_theta`. context: the most positions for which it is computed here exactly, None for all.
    """

    kind: str
    theta: float
    parameters: Mapping[str, Any] = field(default_factory=dict)
    partial: float | None = None  # the share of a head's dimensions that is rotated, where said
    context: int | None = None


def read(settings: Mapping[str, Any], where: str = "config.json") -> Rope | None:
    """The position embeddings of a configuration, in the order of precedence that transformers 5 has.

    None when each type of layer has its own. Raises UnknownRope, in one line that begins with `where`.
    """
    said = settings.get("rope_scaling") or settings.get("rope_parameters") or {}
    if not isinstance(said, Mapping):
        raise UnknownRope(f"{where}: rope_scaling is {said!r:.80}, not a mapping")
    nested = [value for value in said.values() if isinstance(value, Mapping)]
    if nested:
        if any(one != nested[0] for one in nested) or len(nested) != len(said):
            return None
        said = nested[0]
    parameters = {name: value for name, value in said.items() if value is not None}
    kind = parameters.pop("rope_type", None) or parameters.get("type") or "default"
    parameters.pop("type", None)
    kind = _ALIASES.get(kind, kind)
    if kind not in _NEEDED:
        known = ", ".join(_NEEDED)
        raise UnknownRope(f"{where}: position embeddings of the form {kind!r:.80} are not known; these are: {known}")
    theta = parameters.pop("rope_theta", None) or settings.get("rope_theta") or DEFAULT_THETA
    partial = parameters.pop("partial_rotary_factor", settings.get("partial_rotary_factor"))
    longest = settings.get("max_position_embeddings")
    if kind in ("yarn", "llama3", "longrope"):
        original = settings.get("original_max_position_embeddings") or parameters.get(
            "original_max_position_embeddings", longest
        )
        if original is None:
            raise UnknownRope(f"{where}: {kind} position embeddings need original_max_position_embeddings")
        parameters["original_max_position_embeddings"] = original
        if kind == "yarn" and "factor" not in parameters and longest:
            parameters["factor"] = longest / original
    missing = [name for name in _NEEDED[kind] if name not in parameters]
    if missing:
        raise UnknownRope(f"{where}: {kind} position embeddings need {' and '.join(missing)}")
    context = {"dynamic": longest, "longrope": parameters.get("original_max_position_embeddings")}.get(kind)
    return Rope(kind, float(theta), parameters, partial, context)


def for_reading(settings: Mapping[str, Any], reads: Collection[str], where: str = "config.json") -> dict[str, Any]:
    """Changes of a configuration with which mlx_lm computes what transformers does, up to `Rope.context` positions.

    reads: names that mlx_lm's class of this model takes. Raises UnknownRope for what it would drop or do otherwise.
    """
    rope = read(settings, where)
    if rope is None:
        if "rope_parameters" in reads:
            return {}
        raise UnknownRope(f"{where}: its types of layers have different position embeddings, which mlx_lm cannot read")
    if "rope_theta" not in reads and "rope_scaling" not in reads:
        return {}  # other names (rope_base), or read from rope_parameters alone
    kind, parameters = rope.kind, dict(rope.parameters)
    if kind == "yarn":
        parameters = _yarn(parameters, where)
    elif kind == "dynamic":  # it is the plain form until the context is longer than max_position_embeddings
        kind, parameters = "default", {}
    elif kind == "longrope":
        parameters = _longrope(parameters, settings, where)
    plain = kind == "default" and not parameters
    if kind != "default" and "rope_scaling" not in reads:
        raise UnknownRope(f"{where}: mlx_lm's model has no {kind} position embeddings")
    if rope.partial not in (None, 1, 1.0) and "partial_rotary_factor" not in reads and kind != "proportional":
        raise UnknownRope(f"{where}: mlx_lm's model cannot rotate a part of a head ({rope.partial})")
    if kind == "proportional" and rope.partial is not None:
        parameters["partial_rotary_factor"] = rope.partial
    changes: dict[str, Any] = {
        "rope_theta": rope.theta,
        "rope_scaling": None if plain else {"type": kind, "rope_type": kind, **parameters},
    }
    if rope.partial is not None:
        changes["partial_rotary_factor"] = rope.partial
    if "rope_parameters" in settings:  # what a class that reads both may not take instead
        changes["rope_parameters"] = None
    return changes


def for_writing(settings: Mapping[str, Any], where: str = "config.json") -> dict[str, Any]:
    """`settings` with its position embeddings in the old way, which transformers 4 and 5, mlx_lm and vLLM all read."""
    rope = read(settings, where)
    if rope is None:
        return dict(settings)
    parameters = dict(rope.parameters)
    if rope.kind == "yarn":
        parameters = _yarn(parameters, where)
    plain = rope.kind == "default" and not parameters
    written = {name: value for name, value in settings.items() if name not in NAMES}
    written["rope_theta"] = rope.theta
    written["rope_scaling"] = None if plain else {"type": rope.kind, "rope_type": rope.kind, **parameters}
    if rope.partial is not None:
        written["partial_rotary_factor"] = rope.partial
    return written


def _yarn(parameters: dict[str, Any], where: str) -> dict[str, Any]:
    """YaRN (Peng et al. 2023) for mlx_lm, whose scale of queries and keys has no `attention_factor`.

    Both compute it as 0.1 mscale ln(factor) + 1, divided by the same for mscale_all_dim. transformers looks at the two
    only together, mlx_lm at each; and mlx_lm always truncates the bounds of the ramp.
    """
    if not parameters.get("truncate", True):
        raise UnknownRope(f"{where}: yarn position embeddings with truncate: false have no counterpart in mlx_lm")
    changed = {name: value for name, value in parameters.items() if value or name not in ("beta_fast", "beta_slow")}
    if not (parameters.get("mscale") and parameters.get("mscale_all_dim")):
        changed.pop("mscale", None)
        changed.pop("mscale_all_dim", None)
    wanted = parameters.get("attention_factor")
    if wanted is not None:
        changed.pop("mscale", None)
        changed.pop("mscale_all_dim", None)
        if parameters["factor"] > 1:
            changed["mscale"] = (wanted - 1) / (0.1 * math.log(parameters["factor"]))
        elif wanted != 1:
            raise UnknownRope(f"{where}: yarn with factor {parameters['factor']} and attention_factor {wanted}")
    return changed


def _longrope(parameters: dict[str, Any], settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """LongRoPE (Ding et al. 2024) for mlx_lm, which takes the long factors at every length: give it the short ones.

    transformers takes those until the context is longer than original_max_position_embeddings.
    """
    original, longest = parameters["original_max_position_embeddings"], settings.get("max_position_embeddings")
    factor = parameters.get("factor") or longest / original
    usual = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    of_mlx = 1.0 if longest <= original else math.sqrt(1 + math.log(longest / original) / math.log(original))
    if not math.isclose(parameters.get("attention_factor", usual), of_mlx, rel_tol=1e-6):
        raise UnknownRope(f"{where}: longrope with an attention factor of its own has no counterpart in mlx_lm")
    return parameters | {"long_factor": parameters["short_factor"]}
