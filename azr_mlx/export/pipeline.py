"""From a checkpoint to what other tools load: an MLX adapter, a PEFT adapter, a fused Hugging Face model.

Everything is written into a hidden folder beside the target, loaded again, compared with the running policy on real
prompts, and only then given its name. A format that lost the adapter's effect is refused: an update of reinforcement
learning is small, and half precision can round it away (quantizing it again always does, so no format does that).

    OUT/mlx    adapters.safetensors, adapter_config.json                  mlx_lm.generate --adapter-path
    OUT/peft   adapter_model.safetensors, adapter_config.json, tokenizer  peft.PeftModel.from_pretrained
    OUT/hf     weights with the adapter added, config, tokenizer          AutoModelForCausalLM.from_pretrained
    OUT/gguf   the model with the adapter added, the adapter, a Modelfile    llama.cpp, Ollama, LM Studio
    OUT/base   the same as hf without the adapter: what it was trained on, for exact use with OUT/peft

Each folder has a model card (README.md) and manifest.json: where it comes from, what the check found, sha256 of files.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from azr_mlx.errors import AzrError, UsageError
from azr_mlx.export.card import base_model, manifest_facts, model_card
from azr_mlx.export.check import LEAST_COSINE, Check, Foreign
from azr_mlx.export.formats import DTYPES, FORMATS, WHOLE, ExportedFolder, dtype_of
from azr_mlx.export.fused import fused_tensors, write_fused
from azr_mlx.export.gguf import check_gguf, tokenizer_note, write_gguf
from azr_mlx.export.peft import write_peft
from azr_mlx.export.source import AdapterSource, running_policy
from azr_mlx.export.verify import check_folders, check_rows
from azr_mlx.files import sha256, sync
from azr_mlx.model import weights


def export_checkpoint(
    source: AdapterSource,
    formats: Sequence[str],
    target: Path,
    dtype: str = "",
    *,
    base: str = "",
    dry_run: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[ExportedFolder]:
    """Write `formats` of a checkpoint into the new folder `target`, whole or not at all; returns what was written.

    dtype: of whole models, a key of DTYPES; empty is f32, and f16 for GGUF. base: name of the full-precision model,
    when it is not what the model's card says. dry_run: load, check sizes, say what would be done, write nothing.
    Raises UsageError (existing target, unknown format), AzrError (disk, damaged files, an effect that was lost).
    """
    target = target.expanduser().absolute()
    _check_request(formats, target, dtype)
    policy = running_policy(source)
    if not policy.backbone.plain and set(formats) - {"mlx"}:
        kind = policy.settings.get("model_type")
        raise UsageError(f"{kind} can only be exported as an MLX adapter so far: --format mlx")
    if "gguf" in formats:
        check_gguf(policy)
        if note := tokenizer_note(policy):
            say(f"note: {note}")
    origin = base or base_model(policy)
    dtypes = {name: dtype_of(name, dtype) for name in formats}
    sizes = {name: _size(policy, name, dtypes[name]) for name in formats}
    say(f"{source.folder} -> {target}")
    for name in formats:
        say(f"{name:<5} {sizes[name] / 1e6:10.1f} MB  {target / name}")
    _check_room(target, sum(sizes.values()), dtype or "f32", formats)
    if dry_run:
        return []
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)  # of an export that was killed
    try:
        fresh.mkdir(parents=True)
        for name in formats:
            _write_format(policy, name, fresh / name, dtypes[name], origin, source.name)
        checks = check_folders(policy, check_rows(policy, source), {name: fresh / name for name in formats})
        _refuse_lost(checks, dtypes)
        for name in formats:
            _describe(fresh / name, manifest_facts(source, policy, name, dtypes[name], origin, checks[name]))
        fresh.replace(target)
    except OSError as error:
        raise AzrError(f"{target} cannot be written: {error.strerror or error}; nothing was left behind") from None
    except RuntimeError as error:  # what MLX raises when a file cannot be written
        raise AzrError(f"the export failed: {weights.first_line(error)}; nothing was left behind") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    done = []
    for name in formats:
        size = sum(path.stat().st_size for path in (target / name).iterdir())
        done.append(ExportedFolder(name, target / name, size, checks[name]))
    return done


def _check_request(formats: Sequence[str], target: Path, dtype: str) -> None:
    for name in formats:
        if name not in FORMATS:
            raise UsageError(f"--format {name}: the formats are {', '.join(FORMATS)}")
    if dtype and dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype}: one of {', '.join(DTYPES)}")
    if target.exists() or target.is_symlink():
        raise UsageError(f"{target} exists: name another folder with --out, or remove it")


def _write_format(policy: Any, format_: str, folder: Path, dtype: str, origin: str, name: str) -> None:
    folder.mkdir()
    if format_ == "mlx":
        policy.save_adapter(folder)
    elif format_ == "peft":
        write_peft(policy, folder, origin)
    elif format_ == "gguf":
        write_gguf(policy, folder, name, dtype, origin)
    else:
        write_fused(policy, folder, dtype, adapters=format_ == "hf")


def _describe(folder: Path, facts: dict[str, Any]) -> None:
    """Add the model card and the manifest to a folder, which is then on the device, whole."""
    (folder / "README.md").write_text(model_card(facts), encoding="utf-8")
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(folder.iterdir())}
    text = json.dumps({**facts, "files": files}, indent=2) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    for path in folder.iterdir():
        sync(path)


def _refuse_lost(checks: Mapping[str, Check], dtypes: Mapping[str, str]) -> None:
    """Raise one line that says what was lost and what keeps it, when a format is not the policy."""
    lost = {name: found for name, found in checks.items() if not found.good}
    if not lost:
        return
    name, found = next(iter(lost.items()))
    if isinstance(found.foreign, Foreign) and not found.foreign.good:
        raise AzrError(
            f"{name} is another model in transformers than here ({found.foreign}): nothing was written. "
            "Its config.json says something that one of the two reads otherwise; --format mlx,peft writes adapters only"
        )
    what = f"{name} in {DTYPES[dtypes[name]]}" if name in WHOLE else name
    value = "changes the model" if found.cosine is None else f"keeps {found.cosine:.3f} of the adapter's effect"
    keeping = [f"{other} keeps {c.cosine:.3f}" for other, c in checks.items() if c.good and c.cosine is not None]
    cure = "use --dtype f32, or --format mlx,peft" if name in WHOLE and dtypes[name] != "f32" else "use --format mlx"
    raise AzrError(
        f"{what} {value} (cosine {LEAST_COSINE} is needed, KL {found.kl:.1e} per token): nothing was written. "
        f"{cure}{' (' + ', '.join(keeping) + ')' if keeping else ''}"
    )


def _check_room(target: Path, wanted: int, dtype: str, formats: Sequence[str]) -> None:
    free = weights.free_bytes(target)
    if wanted * 1.02 + 20e6 <= free:
        return
    cure = "name a folder on another disk with --out"
    if set(formats) & set(WHOLE):
        cure += (", take --dtype f16" if dtype == "f32" else "") + ", or write adapters only: --format mlx,peft"
    raise AzrError(f"the export needs {wanted / 1e9:.2f} GB, {target.parent} has {free / 1e9:.2f} GB free: {cure}")


def _size(policy: Any, format_: str, dtype: str) -> int:
    """Bytes of weights that a format will hold."""
    from mlx.utils import tree_flatten

    if format_ in ("mlx", "peft"):
        return sum(value.nbytes for _, value in tree_flatten(policy.model.trainable_parameters()))
    size = sum(math.prod(one.shape) for one in fused_tensors(policy)) * (4 if dtype == "f32" else 2)
    return size + (_size(policy, "mlx", dtype) if format_ == "gguf" else 0)
