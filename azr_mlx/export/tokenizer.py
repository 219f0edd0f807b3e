"""The tokenizer of an exported folder, which reads text as the policy does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from azr_mlx.config import load_style
from azr_mlx.model import weights


def write_tokenizer(policy: Any, folder: Path) -> None:
    """The files of the tokenizer and the chat template, reading text as the policy does.

    In the style r1 the policy reads think and answer tags as ordinary text, where the base model has untrained single
    tokens for them (Qwen 3); so those tokens are taken out of the written tokenizer. No other token changes its id.
    """
    from azr_mlx.model.policy import TAGS

    weights.copy_files(policy.folder, folder, weights.TOKENIZER_FILES)
    _for_transformers_4(folder / "tokenizer_config.json")
    if not load_style(policy.config.style).tags:
        return

    def without(value: Any) -> Any:
        if isinstance(value, list):
            return [without(one) for one in value if _content(one) not in TAGS]
        if isinstance(value, dict):
            return {k: without(one) for k, one in value.items() if k not in TAGS and _content(one) not in TAGS}
        return value

    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        path = folder / name
        if path.is_file():
            described = json.loads(path.read_text(encoding="utf-8"))
            kept = {"added_tokens": without(described.get("added_tokens", []))} if name == "tokenizer.json" else None
            fresh = described | kept if kept is not None else without(described)
            if fresh != described:
                path.write_text(json.dumps(fresh, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


# What transformers 5 calls its own classes of a tokenizer.json -> a class of that kind in transformers 4 and 5.
CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}


def _for_transformers_4(path: Path) -> None:
    """Say in words that transformers 4 knows too what transformers 5 has written in words of its own: the class of the
    tokenizer, and a list of further special tokens (a mapping in 4). It reads both, and the tokens are the same."""
    if not path.is_file():
        return
    described = json.loads(path.read_text(encoding="utf-8"))
    fresh = dict(described)
    for name in ("backend", "is_local", "local_files_only"):
        fresh.pop(name, None)
    if "tokenizer_class" in fresh:
        fresh["tokenizer_class"] = CLASSES.get(fresh["tokenizer_class"], fresh["tokenizer_class"])
    if isinstance(fresh.get("extra_special_tokens"), list):
        fresh["additional_special_tokens"] = fresh.pop("extra_special_tokens")
    if fresh != described:
        path.write_text(json.dumps(fresh, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _content(value: Any) -> Any:
    """The text of an entry that describes a token, which is the text itself or a mapping."""
    return value.get("content") if isinstance(value, dict) else value if isinstance(value, str) else None
