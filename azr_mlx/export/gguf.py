"""The trained model and its adapter in GGUF, for llama.cpp and what is built on it: Ollama, LM Studio.

    NAME-f16.gguf    the model with the adapter added
    NAME-lora.gguf   the adapter alone, in float32, for the same base model as GGUF
    Modelfile        what `ollama create` reads

Names and metadata are those that llama.cpp's own converter writes for Qwen 2, Qwen 3 and Llama, through the library
`gguf`. Two things differ from the Hugging Face layout: norms and biases stay float32, and for Llama the rows of query
and key projections are reordered, because llama.cpp rotates neighbouring pairs of a head there instead of its halves.

Tokenizers are byte-level BPE, as in all Qwen, Llama 3 and SmolLM models. llama.cpp has the rule by which a text is cut
before its pairs are merged built in, by name; when it knows none that is the tokenizer's, the file says `default`, and
`tokenizer_note` says that text may be read as other tokens.
"""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azr_mlx.config import load_style
from azr_mlx.errors import AzrError, UsageError
from azr_mlx.export.fused import Tensor, fused_tensors
from azr_mlx.export.peft import adapted
from azr_mlx.export.tokenizer import write_tokenizer

if TYPE_CHECKING:
    import gguf
    import numpy as np

ARCHITECTURES = ("qwen2", "qwen3", "llama")  # model_type, and the name of the same architecture in llama.cpp
PIECE = 64 * 10**6  # bytes of a float32 matrix that are computed at once

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# How a tokenizer cuts text, as tokenizer.json says it -> llama.cpp's name of the same rule.
PRE_TOKENIZERS = {
    (f"{_WORDS}\\p{{N}}{_REST}", "bytes"): "qwen2",
    (f"{_WORDS}\\p{{N}}{{1,3}}{_REST}", "bytes"): "llama-bpe",
    ("digits", "bytes of words"): "smollm",
    ("bytes of words",): "gpt-2",
}
UNKNOWN_CUT = "default"


def check_gguf(policy: Any) -> None:
    """Raise one line when a policy cannot be written as GGUF: library, architecture, rotary scaling, tokenizer."""
    _library()
    kind = policy.settings.get("model_type")
    if kind not in ARCHITECTURES:
        raise UsageError(f"{kind} has no GGUF form here: {', '.join(ARCHITECTURES)} have")
    scaling = _scaling(policy)
    if scaling not in ("default", "linear", "yarn", "llama3"):
        raise UsageError(f"rotary scaling {scaling} has no GGUF form here: --format mlx,peft,hf")
    with tempfile.TemporaryDirectory() as place:
        _tokenizer_json(policy, Path(place))


def write_gguf(policy: Any, folder: Path, name: str, dtype: str = "f16", origin: str = "") -> None:
    """Write both files and the Modelfile. dtype: of matrices, f16, bf16 or f32. origin: the base model's name.

    One matrix is in memory at a time. Raises UsageError, one line, for what `check_gguf` refuses.
    """
    check_gguf(policy)
    write_model(policy, folder / f"{name}-{dtype}.gguf", name, dtype, origin)
    write_adapter(policy, folder / f"{name}-lora.gguf", name, origin)
    (folder / "Modelfile").write_text(modelfile(policy, f"{name}-{dtype}.gguf"), encoding="utf-8")


def write_model(
    policy: Any, path: Path, name: str, dtype: str = "f16", origin: str = "", *, adapters: bool = True
) -> None:
    """The whole model as one file, with the adapter added or without it."""
    lib = _library()
    kinds = {"f16": lib.GGMLQuantizationType.F16, "bf16": lib.GGMLQuantizationType.BF16}
    file_types = {"f16": lib.LlamaFileType.MOSTLY_F16, "bf16": lib.LlamaFileType.MOSTLY_BF16}
    writer = _writer(policy, path, name, lib.GGUFType.MODEL, origin)
    writer.add_file_type(int(file_types.get(dtype, lib.LlamaFileType.ALL_F32)))
    _add_shape(policy, writer)
    _add_tokenizer(policy, writer)
    tensors = list(fused_tensors(policy, adapters))
    import numpy as np

    kind = kinds.get(dtype, lib.GGMLQuantizationType.F32)
    for tensor in tensors:
        own = gguf_name(policy, tensor.name)
        if len(tensor.shape) == 1:
            writer.add_tensor_info(own, tensor.shape, np.dtype(np.float32), 4 * tensor.shape[0])
        else:
            shape = lib.quant_shape_to_byte_shape(tensor.shape, kind)
            writer.add_tensor_info(own, shape, np.dtype(np.uint8), math.prod(shape), raw_dtype=kind)
    factors = _rotary_factors(policy)
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
    with contextlib.closing(writer):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_tensor_data(_in_file_order(policy, tensor.name, _computed(tensor, kind)))
        if factors is not None:
            writer.write_tensor_data(factors)


def write_adapter(policy: Any, path: Path, name: str, origin: str = "") -> None:
    """The adapter alone: A (r, in) and B (out, r) of each adapted matrix, in float32, and alpha = scale * r."""
    import mlx.core as mx
    import numpy as np

    lib = _library()
    writer = _writer(policy, path, name, lib.GGUFType.ADAPTER, origin)
    writer.add_string(lib.Keys.Adapter.TYPE, "lora")
    writer.add_float32(lib.Keys.Adapter.LORA_ALPHA, float(policy.lora.scale * policy.lora.rank))
    for layer, module in adapted(policy.model).items():
        own = gguf_name(policy, f"{layer}.weight")
        a = np.array(module.lora_a.T.astype(mx.float32))
        b = np.array(module.lora_b.T.astype(mx.float32))
        writer.add_tensor(f"{own}.lora_a", np.ascontiguousarray(a))
        writer.add_tensor(f"{own}.lora_b", _in_file_order(policy, f"{layer}.weight", np.ascontiguousarray(b)))
    with contextlib.closing(writer):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


def modelfile(policy: Any, file: str) -> str:
    """What `ollama create NAME -f Modelfile` reads. A base model gets its prompt as it is, without a chat template."""
    lines = [f"FROM ./{file}"]
    if not load_style(policy.config.style).chat:
        lines.append('TEMPLATE """{{ .Prompt }}"""')
    for token in sorted(policy.stop_tokens):
        lines.append(f"PARAMETER stop {json.dumps(policy.decode([token]), ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def tokenizer_note(policy: Any) -> str:
    """What is to be said of how llama.cpp will read text; empty when it reads it as the policy does."""
    with tempfile.TemporaryDirectory() as place:
        if cut_name(_tokenizer_json(policy, Path(place))) != UNKNOWN_CUT:
            return ""
    return "llama.cpp has no rule that cuts text as this tokenizer does: it may read text as other tokens than these"


# Reading back -------------------------------------------------------------------------------------------------------


def read_tensors(policy: Any, path: Path, prefix: str = "") -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """(Hugging Face name, float32 values in Hugging Face order) of those tensors of a model's file whose name begins
    with `prefix`, one tensor in memory at a time."""
    lib = _library()
    names = [tensor.name for tensor in fused_tensors(policy) if tensor.name.startswith(prefix)]
    known = {gguf_name(policy, name): name for name in names}
    for tensor in lib.GGUFReader(path).tensors:
        if tensor.name in known:
            yield known[tensor.name], _from_file_order(policy, known[tensor.name], _values(tensor))


def read_adapter(policy: Any, path: Path) -> tuple[dict[str, tuple[Any, Any]], float]:
    """({layer: (A (r, in), B (out, r))} in Hugging Face order, scale) of an adapter's file."""
    lib = _library()
    reader = lib.GGUFReader(path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    found = {}
    for layer in adapted(policy.model):
        own = gguf_name(policy, f"{layer}.weight")
        a, b = _values(tensors[f"{own}.lora_a"]), _values(tensors[f"{own}.lora_b"])
        found[layer] = (a, _from_file_order(policy, f"{layer}.weight", b))
    alpha = float(reader.fields[lib.Keys.Adapter.LORA_ALPHA].contents())
    return found, alpha / next(iter(found.values()))[0].shape[0]


def _values(tensor: Any) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.asarray(_library().dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)


# Names and order ----------------------------------------------------------------------------------------------------


def gguf_name(policy: Any, name: str) -> str:
    """llama.cpp's name of a tensor, from its Hugging Face name."""
    lib = _library()
    args = policy.model.args
    architecture = getattr(lib.MODEL_ARCH, str(args.model_type).upper())
    found = lib.get_tensor_name_map(architecture, args.num_hidden_layers).get_name(name, (".weight", ".bias"))
    if found is None:
        raise AzrError(f"{name} has no name in llama.cpp's {args.model_type}")
    return str(found)


def _heads(policy: Any, name: str) -> int:
    """Heads whose rows llama.cpp reorders in this tensor; 0 for every other tensor."""
    args = policy.model.args
    if args.model_type != "llama":
        return 0
    heads = {"q_proj": args.num_attention_heads, "k_proj": args.num_key_value_heads}
    return next((count for part, count in heads.items() if f".{part}." in name), 0)


def _in_file_order(policy: Any, name: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Rows (i, j) of a head, halves i and pairs j, become (j, i): pair j then lies side by side."""
    import numpy as np

    heads = _heads(policy, name)
    if not heads:
        return values
    split = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(values.shape)


def _from_file_order(policy: Any, name: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    heads = _heads(policy, name)
    if not heads:
        return values
    split = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(values.shape)


def _computed(tensor: Tensor, kind: gguf.GGMLQuantizationType) -> np.ndarray[Any, Any]:
    """A tensor's values: a vector in float32, a matrix as the bytes of its rows in a number format."""
    import numpy as np

    if len(tensor.shape) == 1:
        return np.array(tensor.rows(0, tensor.shape[0]), dtype=np.float32)
    lib = _library()
    whole = np.empty(lib.quant_shape_to_byte_shape(tensor.shape, kind), np.uint8)
    step = max(1, PIECE // (4 * math.prod(tensor.shape[1:])))
    for i in range(0, tensor.shape[0], step):
        j = min(i + step, tensor.shape[0])
        values = np.ascontiguousarray(np.array(tensor.rows(i, j)), dtype=np.float32)
        whole[i:j] = lib.quantize(values, kind).view(np.uint8).reshape(j - i, -1)
    return whole


# Metadata -----------------------------------------------------------------------------------------------------------


def _writer(policy: Any, path: Path, name: str, kind: str, origin: str) -> gguf.GGUFWriter:
    lib = _library()
    writer = lib.GGUFWriter(path, str(policy.model.args.model_type))
    writer.add_type(kind)
    writer.add_name(name)
    if origin:
        owner, _, model = origin.rpartition("/")
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, model)
        if owner:
            writer.add_base_model_organization(0, owner)
    return writer


def _head_width(policy: Any) -> int:
    args = policy.model.args
    return int(getattr(args, "head_dim", None) or args.hidden_size // args.num_attention_heads)


def _add_shape(policy: Any, writer: gguf.GGUFWriter) -> None:
    lib = _library()
    args = policy.model.args
    writer.add_context_length(int(getattr(args, "max_position_embeddings", None) or 2048))
    writer.add_embedding_length(args.hidden_size)
    writer.add_block_count(args.num_hidden_layers)
    writer.add_feed_forward_length(args.intermediate_size)
    writer.add_head_count(args.num_attention_heads)
    writer.add_head_count_kv(args.num_key_value_heads)
    writer.add_key_length(_head_width(policy))
    writer.add_value_length(_head_width(policy))
    writer.add_layer_norm_rms_eps(args.rms_norm_eps)
    writer.add_rope_freq_base(float(args.rope_theta))
    writer.add_vocab_size(args.vocab_size)
    if args.model_type == "llama":
        writer.add_rope_dimension_count(_head_width(policy))
    scaling = _scaling(policy)
    if scaling in ("linear", "yarn"):
        writer.add_rope_scaling_type(lib.RopeScalingType(scaling))
        writer.add_rope_scaling_factor(float(args.rope_scaling["factor"]))
    if scaling == "yarn":
        writer.add_rope_scaling_orig_ctx_len(int(args.rope_scaling["original_max_position_embeddings"]))


def _scaling(policy: Any) -> str:
    """The kind of rotary scaling: default when there is none."""
    said = getattr(policy.model.args, "rope_scaling", None) or {}
    return str(said.get("rope_type") or said.get("type") or "default")


def _rotary_factors(policy: Any) -> np.ndarray[Any, Any] | None:
    """Llama 3's divisors of the rotary frequencies (head / 2,), which llama.cpp reads as a tensor; else None.

    Wavelengths up to context / high_freq_factor stay, those beyond context / low_freq_factor grow by `factor`, and
    between the two the frequency is interpolated (Llama 3.1's reference code).
    """
    if _scaling(policy) != "llama3":
        return None
    import numpy as np

    args = policy.model.args
    said, width = args.rope_scaling, _head_width(policy)
    factor, context = float(said["factor"]), float(said["original_max_position_embeddings"])
    low, high = float(said["low_freq_factor"]), float(said["high_freq_factor"])
    frequencies = args.rope_theta ** (-np.arange(0, width, 2, dtype=np.float64) / width)
    share = np.clip((context * frequencies / (2 * np.pi) - low) / (high - low), 0.0, 1.0)
    divisors: np.ndarray[Any, Any] = (1 / ((1 - share) / factor + share)).astype(np.float32)
    return divisors


# Tokenizer ----------------------------------------------------------------------------------------------------------


def _tokenizer_json(policy: Any, place: Path) -> dict[str, Any]:
    """tokenizer.json as an export writes it into `place`. Raises UsageError unless it is byte-level BPE."""
    write_tokenizer(policy, place)
    try:
        described: dict[str, Any] = json.loads((place / "tokenizer.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{policy.folder} has no tokenizer.json, which GGUF is written from") from None
    own = described["model"]
    if own.get("type") != "BPE" or not own.get("merges") or "bytes" not in " ".join(_cuts(described)):
        raise UsageError("only byte-level BPE tokenizers (Qwen, Llama 3, SmolLM) have a GGUF form here")
    return described


def cut_name(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name of the rule by which a tokenizer.json cuts text; UNKNOWN_CUT when it has none."""
    return PRE_TOKENIZERS.get(tuple(_cuts(tokenizer)), UNKNOWN_CUT)


def _cuts(tokenizer: dict[str, Any]) -> list[str]:
    """The steps by which text is cut before pairs are merged, in words of PRE_TOKENIZERS."""
    said = tokenizer.get("pre_tokenizer") or {}
    found = []
    for step in said.get("pretokenizers", [said]):
        match step.get("type"):
            case "Split":
                found.append(str(step["pattern"].get("Regex", step["pattern"])))
            case "Digits":
                found.append("digits" if step.get("individual_digits") else "numbers")
            case "ByteLevel":
                found.append("bytes of words" if step.get("use_regex", True) else "bytes")
            case other:
                found.append(str(other))
    return found


def _add_tokenizer(policy: Any, writer: gguf.GGUFWriter) -> None:
    lib = _library()
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        described = _tokenizer_json(policy, place)
        (place / "config.json").write_text((policy.folder / "config.json").read_text(encoding="utf-8"))
        special = lib.SpecialVocab(place, load_merges=True, n_vocab=policy.model.args.vocab_size)
    added = {one["id"]: one for one in described.get("added_tokens", [])}
    names = {number: token for token, number in described["model"]["vocab"].items()}
    names |= {number: one["content"] for number, one in added.items()}
    tokens, types = [], []
    for number in range(policy.model.args.vocab_size):
        if number not in names:  # rows of the embedding that no token has
            tokens.append(f"[PAD{number}]")
            types.append(lib.TokenType.UNUSED)
        else:
            tokens.append(names[number])
            own = added.get(number)
            kind = lib.TokenType.CONTROL if own and own.get("special") else lib.TokenType.USER_DEFINED
            types.append(kind if own else lib.TokenType.NORMAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut_name(described))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    special.add_special_token.setdefault("bos", False)  # llama.cpp would put one before a prompt by itself
    special.add_to_gguf(writer, quiet=True)


def _library() -> Any:
    try:
        import gguf
    except ImportError:
        raise UsageError("--format gguf needs the library gguf: pip install 'azr-mlx[gguf]'") from None
    return gguf
