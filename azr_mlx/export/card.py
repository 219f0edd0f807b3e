"""The manifest and the model card of an exported folder."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from azr_mlx import __version__
from azr_mlx.config import load_style
from azr_mlx.export.check import Check
from azr_mlx.export.formats import DTYPES
from azr_mlx.export.source import AdapterSource
from azr_mlx.files import sha256
from azr_mlx.run.folder import RunFolder
from azr_mlx.versions import package_versions


def base_model(policy: Any) -> str:
    """The full-precision model that a quantized one was made of, as its card says or its name suggests."""
    name = policy.config.id
    if "quantization" not in json.loads((policy.folder / "config.json").read_text(encoding="utf-8")):
        return str(name)
    said = front_matter(policy.folder).get("base_model")
    said = said[0] if isinstance(said, list) and said else said
    if isinstance(said, str) and said:
        return said
    owner, _, plain = name.partition("/")
    stem, dash, suffix = plain.rpartition("-")
    if owner == "mlx-community" and plain.startswith("Qwen") and dash and suffix.lower().endswith("bit"):
        return f"Qwen/{stem.removesuffix('-MLX')}"
    return str(name)


def front_matter(folder: Path) -> dict[str, Any]:
    """The YAML head of a folder's model card; empty when there is none."""
    import yaml

    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
        found = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else None
    except (OSError, IndexError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def manifest_facts(
    source: AdapterSource, policy: Any, format_: str, dtype: str, origin: str, check: Check
) -> dict[str, Any]:
    """All that manifest.json says but for the files; the card is made of it."""
    s = source.settings
    settings = json.loads((policy.folder / "config.json").read_text(encoding="utf-8"))
    packed = settings.get("quantization") or {
        "group_size": s.model.group_size, "bits": s.model.bits, "mode": s.model.mode
    }  # fmt: skip
    versions = {"azr_mlx": __version__} | package_versions(("mlx", "mlx-lm", "transformers"))
    matter = front_matter(policy.folder)
    return {
        "name": source.name,
        "format": format_,
        "dtype": DTYPES[dtype],
        "base_model": origin,
        "trained_on": {
            "model": s.model.id, "revision": s.model.revision or _commit(policy.folder),
            "quantization": {k: packed[k] for k in ("group_size", "bits", "mode") if k in packed},
        },
        "licence": matter.get("license_name") or matter.get("license") or "unknown",
        "licence_link": matter.get("license_link"),
        "style": s.model.style if source.run else None,
        "tags": bool(source.run) and load_style(s.model.style).tags,
        "run": source.run.name if source.run else None,
        "step": source.step,
        "lora": {"rank": s.lora.rank, "scale": s.lora.scale, "layers": s.lora.layers, "keys": list(s.lora.keys)},
        "adapter_sha256": sha256(source.folder / "adapters.safetensors"),
        "metrics": _metrics(source),
        "check": check.facts(),
        "versions": versions,
    }  # fmt: skip


def _commit(folder: Path) -> str | None:
    """The commit of a snapshot in the hub's cache, which is its folder's name."""
    return folder.name if folder.parent.name == "snapshots" else None


def _metrics(source: AdapterSource) -> dict[str, float]:
    """Solve rates before and after, and the last step's numbers up to the exported one; empty without a run."""
    if source.run is None:
        return {}
    found: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        from azr_mlx.run.held_out import HeldOutScore

        scores = json.loads((source.run / "probe.json").read_text())
        newest = RunFolder(source.run).latest()
        if newest is not None and newest.samefile(source.folder):  # `after` is of the run's last policy
            for when in ("before", "after"):
                found[f"probe/mean {when}"] = HeldOutScore.from_state(scores[when]).mean
    with contextlib.suppress(OSError, ValueError):
        lines = (source.run / "metrics.jsonl").read_text().splitlines()
        table = [json.loads(line) for line in lines if line.strip()]
        mine = [row for row in table if source.step is None or row.get("step", 0) < source.step]
        if mine:
            numbers = {k: v for k, v in mine[-1].items() if isinstance(v, int | float) and not isinstance(v, bool)}
            found |= {k: float(v) for k, v in numbers.items() if k.startswith(("solve", "reward", "probe", "valid"))}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def model_card(facts: Mapping[str, Any]) -> str:
    """README.md of an exported folder, with the head that the hub reads."""
    import yaml

    format_, origin, on = facts["format"], facts["base_model"], facts["trained_on"]
    remote = origin.count("/") == 1 and not origin.startswith((".", "/", "~", "checkpoints/"))
    head: dict[str, Any] = {
        "library_name": {"mlx": "mlx", "peft": "peft", "gguf": "gguf"}.get(format_, "transformers"),
        "pipeline_tag": "text-generation",
        "tags": ["azr", "self-play", "reinforcement-learning", *(["mlx", "lora"] if format_ == "mlx" else [])],
    }
    if remote:
        head["base_model"] = origin
    if facts["licence"] != "unknown":
        head["license"] = facts["licence"]
    packed = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in on["quantization"].items())
    found = facts["check"]
    cosine = "no effect to keep" if found["cosine"] is None else f"{found['cosine']:.5f}"
    rounded = f" ({found['kl_as_run']:.1e} as the policy runs)" if found["kl_as_run"] is not None else ""
    metrics = "".join(f"| {name} | {value:.4g} |\n" for name, value in sorted(facts["metrics"].items()))
    trained = f"run `{facts['run']}`" if facts["run"] else "an adapter folder"
    trained += f", after {facts['step']} steps" if facts["step"] is not None else ""
    blocks = "all blocks" if facts["lora"]["layers"] <= 0 else f"the last {facts['lora']['layers']} blocks"
    what = {
        "mlx": "A LoRA adapter for MLX.",
        "peft": "A LoRA adapter for PEFT.",
        "hf": f"A model with its LoRA adapter added, in {facts['dtype']}.",
        "base": f"The model that the adapters were trained on, without them, in {facts['dtype']}.",
        "gguf": f"A model with its LoRA adapter added, in {facts['dtype']}, and the adapter alone, for llama.cpp.",
    }[format_]
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# {facts['name']}\n\n{what} "
        "Trained by self-play as in Absolute Zero (arXiv 2505.03335): the model proposes small programs as tasks, "
        "Python checks them, the model solves them, and both roles learn from the outcome.\n\n"
        f"- Base model: {origin}, licence: {facts['licence']}"
        f"{' (' + facts['licence_link'] + ')' if facts['licence_link'] else ''}\n"
        f"- Trained on: {on['model']}{' at ' + on['revision'] if on['revision'] else ''}, quantized ({packed})\n"
        f"- Trained in: {trained}, with azr_mlx {facts['versions']['azr_mlx']}\n"
        f"- LoRA: rank {facts['lora']['rank']}, scale {facts['lora']['scale']:g} "
        f"(alpha {facts['lora']['scale'] * facts['lora']['rank']:g}), "
        f"{blocks}\n\n"
        f"## How to load it\n\n{_usage(facts)}\n{_caveats(facts)}"
        "## Checked at export\n\nThe files were loaded again and compared with the trained policy, in float32, "
        f"on {found['prompts']} of its prompts ({found['tokens']} tokens):\n\n| | |\n| --- | --- |\n"
        f"| KL per token (nats) | {found['kl']:.1e}{rounded} |\n"
        f"| largest difference of a logit | {found['largest']:.1e} |\n"
        f"| cosine of the logit change | {cosine} |\n| same likeliest token | {100 * found['agree']:.1f} % |\n"
        f"| in another implementation | {found['implementation']} |\n\n"
        + (f"## Metrics\n\n| | |\n| --- | --- |\n{metrics}\n" if metrics else "")
        + "manifest.json holds these numbers and the sha256 of every file.\n"
    )


LEAST_TRANSFORMERS = "It needs transformers 4.57 or newer."  # the tokenizer's files were tried in 4.57 and in 5


def _usage(facts: Mapping[str, Any]) -> str:
    format_, origin, on = facts["format"], facts["base_model"], facts["trained_on"]
    quantized = on["quantization"]
    if format_ == "gguf":
        model = f"{facts['name']}-{next(short for short, name in DTYPES.items() if name == facts['dtype'])}.gguf"
        return (
            f"```sh\nollama create {facts['name'].lower()} -f Modelfile && ollama run {facts['name'].lower()}\n"
            f"llama-cli -m {model} -p 'def f(a):'\nlms import {model}   # LM Studio\n```\n\n"
            f"`{facts['name']}-lora.gguf` is the adapter alone: `llama-cli -m BASE.gguf --lora ADAPTER.gguf`, or "
            "`FROM` the base and `ADAPTER` in a Modelfile. Quantizing the model again may round the update away.\n"
        )
    if format_ == "mlx":
        made = (
            ""
            if "/" in origin and origin != on["model"]
            else f"If `{on['model']}` is not quantized, make the model that the adapter was trained on first:\n\n"
            f"```sh\npython -m mlx_lm convert --model {on['model']} -q --q-bits {quantized.get('bits', 4)} "
            f"--q-group-size {quantized.get('group_size', 64)} --mlx-path BASE\n```\n\n"
        )
        return (
            f"```sh\nmlx_lm.generate --model {on['model']} --adapter-path . --prompt 'def f(a):'\n"
            f"mlx_lm.server --model {on['model']} --adapter-path .\n```\n\n{made}"
        )
    if format_ == "peft":
        return (
            "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'base = AutoModelForCausalLM.from_pretrained("{origin}", device_map="auto")\n'
            'model = PeftModel.from_pretrained(base, ".")\ntokenizer = AutoTokenizer.from_pretrained(".")\n```\n\n'
            f"{LEAST_TRANSFORMERS}\n"
        )
    return (
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained(".", dtype="auto", device_map="auto")\n'
        'tokenizer = AutoTokenizer.from_pretrained(".")\n'
        'inputs = tokenizer("def f(a):", return_tensors="pt").to(model.device)\n'
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0]))\n```\n\n"
        f"{LEAST_TRANSFORMERS}\n\n"
        "The same in MLX: `mlx_lm.generate --model . --prompt 'def f(a):'`. Quantizing this model again would round "
        "the update away; on a Mac use the MLX adapter on the quantized base.\n"
    )


def _caveats(facts: Mapping[str, Any]) -> str:
    lines = []
    if facts["format"] == "peft":
        lines.append(
            "The adapter was trained on the quantized model. On the full-precision base it is nearly, not exactly, the "
            "policy that was trained; the format `base` of the export is the exact counterpart."
        )
    if facts["tags"]:
        lines.append(
            "The model was trained to read `<think>` and `<answer>` tags as ordinary text"
            + (": keep the tokenizer's own think tokens out of prompts." if facts["format"] == "mlx"
               else "; the tokenizer in this folder does so.")
        )  # fmt: skip
    return "".join(f"{line}\n\n" for line in lines)
