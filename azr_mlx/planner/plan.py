"""Will a configuration fit, and how long will a step take? Answered from shapes alone, before anything is downloaded.

Memory is counted from what the code does: `sampler` bounds keys and values, `loss` keeps the inputs of all blocks and
one block's temporaries (or, kept, all of them) and a few rows of logits, `policy` holds adapters, two moments and, on a
CPU, a second set of projections with the adapters added. How many arrays of a block are alive at once was read from
the graph and fitted to measured peaks on a CPU; `benchmarks/speed/memory.py` shows prediction beside measurement. What
is said about a GPU is derived from the same counts and has not been measured.

Time is a roofline (Williams, Waterman and Patterson 2009): a step of decoding reads all weights and all keys and
values once, prefill and update are products of matrices, and each takes at least bytes / bandwidth or operations /
rate, whichever is longer.

Plain Python: MLX is imported only to measure this machine. Sizes are bytes (1 GB = 10^9), times seconds.
Letters: B rows, P prompt tokens, K completion tokens, T tokens of a pass, N completion tokens, V vocabulary, D width.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from azr_mlx import config, paths
from azr_mlx.errors import AzrError, UsageError

GB = 10**9

# What `sampler`, `loss` and `linux_cpu` do, said again because importing them would import MLX; a test compares.
CACHE_STEP = 256  # columns by which keys and values grow
PREFILL_TOKENS = 16384  # tokens of one pass of a prefill
HEAD_BYTES = 64 * 2**20  # one float32 (rows, V) array in the head
QUERY_BLOCK = 64  # queries that attend together on a CPU
KEPT_LENGTH = 256  # longest rows that hold their attention weights there

# Arrays of a block that are alive at the peak, by their width: the residual stream (D), the gate (F), queries (H d),
# keys or values (G d), adapters (rank), and attention weights or scores. Fitted by benchmarks/speed/fit_memory.py.
Arrays = Mapping[str, float]
# First what a CPU holds, whose gradients are written out (linux_cpu.py), then what it held when MLX found them by
# itself, as it still does on a GPU.
RECOMPUTED: Arrays = {"width": 11.1, "gate": 11.7, "queries": 6.9, "keys": 3.5, "rank": 0.0, "scores": 1.1}
KEPT: Arrays = {"width": 5.8, "gate": 4.6, "queries": 4.3, "keys": 2.6, "rank": 1.9, "scores": 0.6}
GPU_RECOMPUTED: Arrays = {"width": 9.9, "gate": 16.7, "queries": 1.2, "keys": 6.6, "rank": 3.3, "scores": 1.8}
GPU_KEPT: Arrays = {"width": 5.5, "gate": 6.5, "queries": 2.4, "keys": 4.0, "rank": 4.7, "scores": 1.2}
PREFILL: Arrays = {"width": 7.5, "gate": 3.8, "queries": 4.2, "keys": 0.0, "rank": 0.0, "scores": 2.5}
KEPT_EXTRA = 0.75  # the backward pass of a kept block holds so much more than what was kept
HEAD_ARRAYS = 3  # (rows, V) arrays in the head of the loss
DRAW_ARRAYS = 2.5  # (B, V) arrays while tokens are drawn
STEP_ARRAYS = 3  # gradient, its scaled copy and the new parameters and moments of an optimizer step
# The graph of masked attention on a GPU keeps probabilities and their gradient; causal attention keeps no scores.
MASKED_SCORES = 4

PYTHON_BYTES = 600 * 10**6  # interpreter, libraries and tokenizer, without what MLX holds
WORKER_BYTES = 85 * 10**6  # two clean processes, their guards and a small program of one executor worker
PREFIX_TOKENS = 512  # instructions that the prompts of a role and kind share and the sampler remembers

# Shapes as published in each repository's config.json.
_QWEN25 = {"model_type": "qwen2", "vocab_size": 151_936, "tie_word_embeddings": True}
_QWEN3 = {"model_type": "qwen3", "vocab_size": 151_936, "tie_word_embeddings": True, "head_dim": 128}


def _sizes(width: int, layers: int, gate: int, heads: int, kv_heads: int) -> dict[str, int]:
    return {
        "hidden_size": width, "num_hidden_layers": layers, "intermediate_size": gate, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
    }  # fmt: skip


PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "qwen2.5-0.5b": _QWEN25 | _sizes(896, 24, 4864, 14, 2),
    "qwen2.5-1.5b": _QWEN25 | _sizes(1536, 28, 8960, 12, 2),
    "qwen2.5-3b": _QWEN25 | _sizes(2048, 36, 11_008, 16, 2),
    "qwen2.5-7b": _QWEN25 | _sizes(3584, 28, 18_944, 28, 4) | {"vocab_size": 152_064, "tie_word_embeddings": False},
    "qwen2.5-14b": _QWEN25 | _sizes(5120, 48, 13_824, 40, 8) | {"vocab_size": 152_064, "tie_word_embeddings": False},
    "qwen1.5-4b": _QWEN25 | _sizes(2560, 40, 6912, 20, 20) | {"tie_word_embeddings": False},
    "qwen3-0.6b": _QWEN3 | _sizes(1024, 28, 3072, 16, 8),
    "qwen3-1.7b": _QWEN3 | _sizes(2048, 28, 6144, 16, 8),
    "qwen3-4b": _QWEN3 | _sizes(2560, 36, 9728, 32, 8),
    "qwen3-8b": _QWEN3 | _sizes(4096, 36, 12_288, 32, 8) | {"tie_word_embeddings": False},
}

# Unified memory GB/s as Apple publishes it for the largest variant, and float16 TFLOP/s derived from cores x clock.
APPLE: Mapping[str, tuple[float, float]] = {
    "M1": (68, 2.6), "M1 Pro": (200, 5.3), "M1 Max": (400, 10.6), "M1 Ultra": (800, 21.2),
    "M2": (100, 3.6), "M2 Pro": (200, 6.8), "M2 Max": (400, 13.6), "M2 Ultra": (800, 27.2),
    "M3": (100, 3.5), "M3 Pro": (150, 6.4), "M3 Max": (400, 14.2), "M3 Ultra": (819, 28.4),
    "M4": (120, 4.3), "M4 Pro": (273, 8.6), "M4 Max": (546, 17.2),
}  # fmt: skip
# Shares of the peaks that kernels reach; derived from published speeds of other programs, not measured here.
GPU_BANDWIDTH, GPU_FLOPS = 0.7, 0.6


# -- the model ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Linear:
    """A matrix of one block: its path in the block, inputs and outputs."""

    path: str
    inputs: int
    outputs: int
    bias: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model's config.json says about sizes."""

    source: str  # where that was read
    kind: str
    width: int
    layers: int
    gate: int
    heads: int
    kv_heads: int
    head: int  # numbers of one attention head
    vocabulary: int
    tied: bool
    quantized: Mapping[str, Any] = field(default_factory=dict)  # of weights that come quantized

    @property
    def queries(self) -> int:
        return self.heads * self.head

    @property
    def keys(self) -> int:
        return self.kv_heads * self.head

    def linears(self) -> tuple[Linear, ...]:
        bias = self.kind == "qwen2"
        return (
            Linear("self_attn.q_proj", self.width, self.queries, bias),
            Linear("self_attn.k_proj", self.width, self.keys, bias),
            Linear("self_attn.v_proj", self.width, self.keys, bias),
            Linear("self_attn.o_proj", self.queries, self.width),
            Linear("mlp.gate_proj", self.width, self.gate),
            Linear("mlp.up_proj", self.width, self.gate),
            Linear("mlp.down_proj", self.gate, self.width),
        )

    @property
    def matrices(self) -> int:
        """Parameters of the blocks' matrices."""
        return self.layers * sum(one.inputs * one.outputs for one in self.linears())

    @property
    def parameters(self) -> int:
        """All parameters of the dense model."""
        biases = self.layers * sum(one.outputs for one in self.linears() if one.bias)
        norms = self.layers * (2 * self.width + (2 * self.head if self.kind == "qwen3" else 0)) + self.width
        return self.matrices + biases + norms + (1 if self.tied else 2) * self.vocabulary * self.width


def shape_of(model: config.ModelConfig) -> Shape:
    """The shapes of a model: of its folder, of the Hugging Face cache, or of the table of published ones.

    Raises UsageError, one line that says what to do, when none of them knows the model.
    """
    folder = paths.local(model.id)
    if folder is not None and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UsageError(f"{folder} has no config.json: it is not a model folder")
        return _read(folder / "config.json")
    cached = _cached(model)
    if cached is not None:
        return _read(cached)
    name = model.id.rpartition("/")[2].lower()
    packed = re.search(r"-([234568])bit", name)
    known = re.match(r"(qwen[\d.]+)(?:-coder)?(-[\d.]+b)(?![\w.])", name)
    published = PUBLISHED.get("".join(known.groups())) if known else None
    if published is None:
        raise UsageError(
            f"the shapes of {model.id} are not known: fetch them with hf download {model.id} config.json, "
            "or name a local folder with --set model.id=FOLDER"
        )
    quantized = {"bits": int(packed.group(1)), "group_size": 64, "mode": "affine"} if packed else {}
    return _shape(published, "published shapes", quantized)


def _cached(model: config.ModelConfig) -> Path | None:
    """config.json of a repository in the Hugging Face cache. Never asks the network."""
    if model.id.count("/") != 1 or model.id.startswith((".", "/", "~")):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model.id, "config.json", revision=model.revision or None)
    return Path(found) if isinstance(found, str) else None


def _read(path: Path) -> Shape:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return _shape(said, str(path), said.get("quantization") or {})
    except (OSError, ValueError, AttributeError):
        raise UsageError(f"{path} cannot be read as JSON: fetch the model again") from None
    except (KeyError, TypeError) as error:
        raise UsageError(f"{path} is of a kind that azr plan does not know: it lacks {error}") from None


def _shape(said: Mapping[str, Any], source: str, quantized: Mapping[str, Any]) -> Shape:
    heads = int(said["num_attention_heads"])
    return Shape(
        source, str(said["model_type"]), int(said["hidden_size"]), int(said["num_hidden_layers"]),
        int(said["intermediate_size"]), heads, int(said.get("num_key_value_heads") or heads),
        int(said.get("head_dim") or said["hidden_size"] // heads), int(said["vocab_size"]),
        bool(said.get("tie_word_embeddings", False)), quantized,
    )  # fmt: skip


# -- the machine --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Machine:
    """What the model runs on. `room` is what it may use of `memory`; bandwidth and flops are peaks, per second."""

    name: str
    kind: str  # "metal", "cuda" or "cpu"
    memory: float
    room: float
    bandwidth: float
    flops: float
    basis: str  # where the two come from
    cores: int  # workers of the executor when executor.workers is 0
    elementwise: float = 0.0  # seconds an exponential takes, where they are not hidden behind the rest
    launch: float = 0.0  # seconds that one operation costs however small it is

    @property
    def packed(self) -> bool:
        return self.kind != "cpu"

    @property
    def reached(self) -> tuple[float, float]:
        """Shares of bandwidth and flops that are reached. A measured rate is reached."""
        return (GPU_BANDWIDTH, GPU_FLOPS) if self.packed else (1.0, 1.0)


def mac(memory: float, chip: str = "", room: float = 0.0) -> Machine:
    """A Mac by its memory in bytes and its chip ("M3 Max"; empty: the least one sold with so much memory of M3)."""
    chip = chip.removeprefix("Apple ").strip()
    known = {name.lower(): name for name in APPLE}
    assumed = "" if chip else ", assumed"
    chip = chip or ("M3 Max" if memory > 36e9 else "M3 Pro" if memory > 24e9 else "M3")
    name = known.get(chip.lower())
    if name is None:
        raise UsageError(
            f"the chip {chip} is not in the table: give --bandwidth and --flops, or one of {', '.join(APPLE)}"
        )
    bandwidth, flops = APPLE[name]
    # recommendedMaxWorkingSetSize as Metal reports it: two thirds of memory up to 32 GB, three quarters above.
    room = room or memory * (2 / 3 if memory <= 33e9 else 3 / 4)
    basis = "published bandwidth, derived flops"
    cores = 8 if name.count(" ") == 0 else 24 if "Ultra" in name else 14
    return Machine(f"Apple {name}{assumed}", "metal", memory, room, bandwidth * GB, flops * 1e12, basis, cores)


def here() -> Machine:
    """This machine: a Mac by its chip, anything else measured in about a second. Imports MLX unless it is a Mac."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        memory = float(_sysctl("hw.memsize") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        limit = float(_sysctl("iogpu.wired_limit_mb") or 0) * 2**20
        try:
            return mac(memory, _sysctl("machdep.cpu.brand_string"), limit)
        except UsageError:
            return replace(_measured(), memory=memory, room=limit or 0.75 * memory)
    return _measured()


def _sysctl(name: str) -> str:
    said = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=False)
    return said.stdout.strip() if said.returncode == 0 else ""


def _measured() -> Machine:
    """Bandwidth, flops and what small things cost, with the operations that the trainer uses."""
    import time

    from azr_mlx.model import device

    profile = device.prepare()
    import mlx.core as mx

    from azr_mlx.model.cpu_kernels import exp

    def best(make: Any, seconds: float = 0.2) -> float:
        mx.eval(make())
        shortest, end = math.inf, time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            mx.eval(make())
            shortest = min(shortest, time.perf_counter() - start)
        return shortest

    dtype = mx.bfloat16 if profile.packed else mx.float32
    side = 4096 if profile.packed else 768
    a = mx.random.normal((side, side)).astype(dtype)
    flops = 2 * side**3 / best(lambda: a @ a)
    wide = mx.zeros((32 * 10**6 // dtype.size,), dtype)  # beyond any cache of a core
    bandwidth = 2 * wide.nbytes / best(lambda: wide + 1)
    numbers = mx.zeros((200_000,))
    small = mx.zeros((8,))

    def chain() -> mx.array:
        value = small
        for _ in range(200):
            value = value + 1
        return value

    elementwise = 0.0 if profile.packed else best(lambda: exp(numbers)) / numbers.size
    launch = best(chain) / 200
    room = 0.9 * profile.memory if profile.packed else 0.8 * profile.memory
    return Machine(
        profile.device_name, profile.name, profile.memory, room, bandwidth, flops, "measured just now",
        os.cpu_count() or 1, elementwise, launch,
    )  # fmt: skip


def size(text: str) -> float:
    """Bytes of a text such as 48GB, 48, 512MB or 64GiB; a bare number is GB. Raises UsageError."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(T|G|M)?(i)?B?\s*", text, re.IGNORECASE)
    if found is None or float(found.group(1)) == 0:
        raise UsageError(f"{text} is not a size: write it as 48GB")
    base = 1024 if found.group(3) else 1000
    return float(found.group(1)) * base ** {"M": 2, "G": 3, "T": 4}[(found.group(2) or "G").upper()]


# -- the work -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Phase:
    """Rollouts that are written together: `prompts` x `group` rows of at most P prompt and K completion tokens."""

    name: str
    prompts: int
    group: int
    prompt: int
    tokens: int
    trained: bool = True

    @property
    def rows(self) -> int:
        return self.prompts * self.group

    def shorter(self, share: float) -> Phase:
        return replace(self, prompt=max(1, round(share * self.prompt)), tokens=max(1, round(share * self.tokens)))


def phases(settings: config.Config) -> tuple[Phase, ...]:
    """The rollouts of one step, every prompt and completion as long as it may be."""
    b, s, kinds = settings.batch, settings.sampling, len(settings.tasks.kinds)
    found = (
        Phase("propose", kinds * b.proposals, 1, s.prompt_tokens, s.propose_tokens, b.train_proposer),
        Phase("attempt", kinds * b.proposals, b.attempts, s.prompt_tokens, s.solve_tokens, b.train_attempts),
        Phase("solve", kinds * b.solves, b.solve_group, s.prompt_tokens, s.solve_tokens),
    )
    return tuple(one for one in found if one.rows)


def together(settings: config.Config) -> tuple[Phase, ...]:
    """What else a run writes together: proposals that fill the buffer, all of a step, and the held-out tasks."""
    s, kinds = settings.sampling, len(settings.tasks.kinds)
    seeds = kinds * max(settings.batch.proposals, s.max_rows // (2 * kinds))
    found = [Phase("seed", seeds, 1, s.prompt_tokens, s.propose_tokens, False)]
    # Attempts and drawn tasks may be answered side by side, and with `overlap` beside proposals.
    work = [one for one in phases(settings) if s.overlap or one.name != "propose"]
    if work:
        prompts, rows = sum(one.prompts for one in work), sum(one.rows for one in work)
        tokens = max(one.tokens for one in work)
        found.append(Phase("write", prompts, -(-rows // prompts), s.prompt_tokens, tokens, False))
    if settings.evaluation.probe != "none":
        found.append(Phase("probe", s.max_rows, 1, s.prompt_tokens, s.solve_tokens, False))
    return tuple(found)


# -- memory -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. Sampling and learning take turns, so the peak is what stays plus the larger of the two."""

    weights: int
    adapters: int  # parameters and both moments
    merged: int  # projections with the adapters added, CPU only
    caches: int  # keys and values of the widest batch
    sampling: int  # beside them: prefill, growth of the cache, logits
    gradients: int
    activations: int  # inputs of all blocks, a block's temporaries (all blocks' when kept), the head
    buffers: int  # freed memory that MLX keeps, and remembered prefixes
    children: int  # executor and Python
    width: int  # rows of the widest batch
    columns: int  # tokens that each of them has room for
    token_bytes: int
    pass_tokens: int  # tokens of the largest micro-batch

    @property
    def while_sampling(self) -> int:
        return self.caches + self.sampling

    @property
    def while_learning(self) -> int:
        return self.gradients + self.activations

    @property
    def device_peak(self) -> int:
        """What MLX holds at most: comparable to mx.get_peak_memory()."""
        return self.weights + self.adapters + self.merged + max(self.while_sampling, self.while_learning)

    @property
    def total(self) -> int:
        return self.device_peak + self.buffers + self.children


def memory(settings: config.Config, shape: Shape, machine: Machine, work: Sequence[Phase] | None = None) -> Memory:
    """Memory of a step whose rollouts are all as long as they may be (or those of `work`)."""
    work = (*phases(settings), *together(settings)) if work is None else work
    act = 4 if settings.model.dtype == "float32" or not machine.packed else 2
    keys = token_bytes(settings, shape, machine)
    adapter = adapter_parameters(settings.lora, shape)
    caches = sampling = width = columns = 0
    for one in work:
        rows = rows_together(settings.sampling, one, keys)
        length = _columns(one.prompt + one.tokens)
        cache = rows * length * keys
        # A prefill computes each prompt once, then forks it: both copies are there, and the pass's temporaries before.
        distinct = min(-(-rows // one.group), max(1, PREFILL_TOKENS // one.prompt))
        tokens = min(PREFILL_TOKENS, distinct * one.prompt)
        own = distinct * _columns(one.prompt) * keys
        scores = distinct * min(one.prompt, QUERY_BLOCK) * one.prompt
        block = _block(PREFILL, shape, tokens, scores, 0, act, 0 if machine.packed else 4)
        # One layer's cache is copied when it grows, if it has to; logits, or a block's temporaries, come and go.
        grows = cache // shape.layers if length > _columns(one.prompt) else 0
        step = _block(PREFILL, shape, rows, rows * length, 0, act, act)
        beside = max(grows, DRAW_ARRAYS * 4 * rows * shape.vocabulary, step)
        fork = 2 * own / shape.layers if one.group > 1 else 0  # layer by layer, the old one leaves when it is copied
        beside = max(beside, own + block - cache, fork + rows * _columns(one.prompt) * keys - cache)
        if cache + beside > caches + sampling:
            caches, sampling, width, columns = cache, int(beside), rows, length
    gradients, activations, pass_tokens = _learning(settings, shape, machine, work, act, adapter)
    kinds = len(settings.tasks.kinds)
    buffers = 0
    if machine.kind == "metal":
        buffers = int(min(4 * GB, max(2 * GB, machine.memory // 16)))  # device.prepare's limit of MLX's cache
    buffers += 2 * kinds * min(PREFIX_TOKENS, settings.sampling.prompt_tokens) * keys
    workers = settings.executor.workers or machine.cores
    merged = 0 if machine.packed else 4 * _adapted_numbers(settings.lora, shape)
    return Memory(
        weights=weight_bytes(settings.model, shape, machine), adapters=3 * 4 * adapter, merged=merged, caches=caches,
        sampling=sampling, gradients=gradients, activations=activations, buffers=buffers,
        children=PYTHON_BYTES + workers * WORKER_BYTES + settings.executor.memory_mb * 2**20,
        width=width, columns=columns, token_bytes=keys, pass_tokens=pass_tokens,
    )  # fmt: skip


def _learning(
    settings: config.Config, shape: Shape, machine: Machine, work: Sequence[Phase], act: int, adapter: int
) -> tuple[int, int, int]:
    """(gradients, activations, tokens of the largest micro-batch) of an update."""
    budget = settings.optim.micro_batch_tokens
    trained = [one for one in work if one.trained]
    activations = pass_tokens = 0
    several = False
    longest = 1 << 62 if machine.packed else KEPT_LENGTH
    recomputed, kept = (GPU_RECOMPUTED, GPU_KEPT) if machine.packed else (RECOMPUTED, KEPT)
    for shared in (False, True):
        # Rows that share a prompt go into passes of their own (loss.micro_batches).
        alike = [one for one in trained if (one.group > 1) == shared]
        pack = _pack_shared if shared else _pack_apart
        packs = [pack(one, budget, longest) for one in alike]
        total = sum(
            _pack_shared(one, 1 << 62, longest)[0] if shared else one.rows * (one.prompt + one.tokens - 1)
            for one in alike
        )
        several = several or total > budget or activations > 0 < total
        for tokens, scores, completion in packs:
            # Shorter rows may fill a pass that the longest ones leave room in.
            tokens = max(tokens, min(budget, total))
            arrays = recomputed if settings.optim.checkpoint_layers else kept
            # Half of a block's arrays belong to its adapters, which are float32 whatever the activations are.
            each = (act + 4) / 2
            score_bytes = 4.0
            if machine.packed:
                score_bytes = act * MASKED_SCORES / arrays["scores"] if shared else 0
            block = _block(arrays, shape, tokens, scores, settings.lora.rank, each, score_bytes)
            head = HEAD_ARRAYS * 4 * min(head_rows(shape.vocabulary), completion) * shape.vocabulary
            head += 2 * 4 * completion * shape.width
            if settings.optim.checkpoint_layers:
                states = (shape.layers + 1) * tokens * shape.width * act
                peak = states + max(block, head)
            else:
                peak = shape.layers * block + max(KEPT_EXTRA * block, head)
            activations, pass_tokens = max(activations, int(peak)), max(pass_tokens, tokens)
    if not activations:
        return 0, 0, 0
    gradients = (2 if several else 1) * 4 * adapter
    # The optimizer's step comes when no activations are left.
    return max(gradients, STEP_ARRAYS * 4 * adapter - activations), activations, pass_tokens


def _pack_apart(one: Phase, budget: int, longest: int) -> tuple[int, float, int]:
    """(tokens, attention weights of one head, completion tokens) of the fullest micro-batch of rows apart."""
    length = one.prompt + one.tokens - 1
    rows = min(one.rows, max(1, budget // (length + 1)))
    return rows * length, rows * held_weights(length, length, True, longest), rows * one.tokens


def _pack_shared(one: Phase, budget: int, longest: int) -> tuple[int, float, int]:
    """The same for rows that share prompts: as many whole or partial groups as the budget takes."""
    prompts = rows = 0
    while rows < one.rows:
        new = rows % one.group == 0
        if rows and (prompts + new) * one.prompt + (rows + 1) * one.tokens > budget:
            break
        prompts, rows = prompts + new, rows + 1
    own = max(1, one.tokens - 1)
    scores = rows * held_weights(own, one.prompt + own, False, longest)
    scores += prompts * held_weights(one.prompt, one.prompt, True, longest)
    return prompts * one.prompt + rows * own, scores, rows * one.tokens


def held_weights(length: int, span: int, causal: bool, longest: int) -> float:
    """Attention weights of one head that a row of `length` queries and `span` keys holds for its gradient."""
    if length > longest:
        return 0
    return length * (span - (max(0, length - QUERY_BLOCK) / 2 if causal else 0))


def _block(
    arrays: Arrays, shape: Shape, tokens: float, scores: float, rank: int, each: float, score_bytes: float
) -> float:
    """Bytes of a block's temporaries for `tokens` tokens and `scores` numbers of scores a head."""
    a = arrays
    numbers = a["width"] * shape.width + a["gate"] * shape.gate + a["queries"] * shape.queries + a["keys"] * shape.keys
    return tokens * (numbers * each + a["rank"] * rank * 4) + a["scores"] * scores * shape.heads * score_bytes


def weight_bytes(model: config.ModelConfig, shape: Shape, machine: Machine) -> int:
    """Bytes of the base model: packed with its scales and biases on a GPU, float32 on a CPU."""
    if not machine.packed:
        return 4 * shape.parameters
    act = 4 if model.dtype == "float32" else 2
    said: Mapping[str, Any] = shape.quantized or {
        "bits": model.bits, "group_size": model.group_size, "mode": model.mode
    }  # fmt: skip

    def matrix(path: str, inputs: int, outputs: int) -> int:
        own = said.get(path, said)
        if own is False or inputs % int((own if isinstance(own, Mapping) else said)["group_size"]):
            return inputs * outputs * act  # mlx_lm leaves such a matrix as it is
        own = own if isinstance(own, Mapping) else said
        groups = inputs // int(own["group_size"])
        # An affine group has a scale and a bias; the others one scale of eight bits.
        scales = 2 * act if own.get("mode", "affine") == "affine" else 1
        return outputs * (inputs * int(own["bits"]) // 8 + groups * scales)

    total = matrix("model.embed_tokens", shape.width, shape.vocabulary)
    if not shape.tied:
        total += matrix("lm_head", shape.width, shape.vocabulary)
    for i in range(shape.layers):
        for one in shape.linears():
            total += matrix(f"model.layers.{i}.{one.path}", one.inputs, one.outputs)
    matrices = shape.matrices + (1 if shape.tied else 2) * shape.vocabulary * shape.width
    return total + act * (shape.parameters - matrices)


def adapter_parameters(lora: config.LoraConfig, shape: Shape) -> int:
    """Numbers in all adapters."""
    return sum(lora.rank * (one.inputs + one.outputs) for one in _adapted(lora, shape))


def _adapted(lora: config.LoraConfig, shape: Shape) -> Iterator[Linear]:
    layers = shape.layers if lora.layers < 0 else min(lora.layers, shape.layers)
    for _ in range(layers):
        yield from (one for one in shape.linears() if not lora.keys or one.path in lora.keys)


def _adapted_numbers(lora: config.LoraConfig, shape: Shape) -> int:
    return sum(one.inputs * one.outputs for one in _adapted(lora, shape))


def token_bytes(settings: config.Config, shape: Shape, machine: Machine) -> int:
    """Keys and values of one token in all layers."""
    act = 4 if settings.model.dtype == "float32" or not machine.packed else 2
    return 2 * shape.layers * shape.keys * act


def rows_together(sampling: config.SamplingConfig, one: Phase, keys: int) -> int:
    """Rows that the sampler decodes together: it admits what `max_rows` and `kv_gb` allow, and at least one."""
    rows = min(sampling.max_rows, one.rows)
    if sampling.kv_gb:
        # The sampler leaves a step of room, for rows that join others of another age.
        rows = min(rows, int(sampling.kv_gb * GB) // ((one.prompt + one.tokens + CACHE_STEP) * keys))
    return max(1, rows)


def head_rows(vocabulary: int) -> int:
    """Completion tokens that pass the head of the loss together, as `loss.head_rows`."""
    return max(16, HEAD_BYTES // (4 * vocabulary) // 16 * 16)


def _columns(tokens: int) -> int:
    return -(-tokens // CACHE_STEP) * CACHE_STEP


# -- time ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cost:
    """One part of a step: what it moves and computes, and its time by the roofline."""

    name: str
    bytes: float
    flops: float
    seconds: float
    bound: str  # "bandwidth", "flops" or "small operations"
    what: str


def times(settings: config.Config, shape: Shape, machine: Machine, share: float) -> list[Cost]:
    """The parts of a step when prompts and completions have `share` of their longest lengths."""
    work = [one.shorter(share) for one in phases(settings)]
    weights = weight_bytes(settings.model, shape, machine)
    table = shape.vocabulary * shape.width
    keys = token_bytes(settings, shape, machine)
    adapters = 4 * adapter_parameters(settings.lora, shape)
    costs = []
    for one, longest in zip(work, phases(settings), strict=True):
        rows = rows_together(settings.sampling, longest, keys)  # the sampler plans for the longest
        pairs = one.prompts * one.prompt**2 / 2
        prompt_tokens = one.prompts * one.prompt
        flops = 2 * shape.matrices * prompt_tokens + 4 * pairs * shape.queries * shape.layers
        passes = max(1, prompt_tokens / PREFILL_TOKENS)
        exps = prompt_tokens * shape.gate * shape.layers + 2 * pairs * shape.heads * shape.layers
        costs.append(_cost(f"{one.name}: prefill", passes * weights, flops, exps, passes * 40 * shape.layers, machine,
                           f"{one.prompts:,} prompts of {one.prompt:,} tokens"))  # fmt: skip
        steps = math.ceil(one.rows / rows) * one.tokens
        context = one.prompt + one.tokens / 2
        moved = steps * (weights + adapters + rows * (context * keys + 8 * 4 * shape.vocabulary))
        each = 2 * (shape.matrices + table) + 4 * context * shape.queries * shape.layers
        exps = steps * rows * (shape.layers * (shape.gate + context * shape.heads) + 2 * shape.vocabulary)
        costs.append(_cost(f"{one.name}: decode", moved, steps * rows * each, exps, steps * 40 * shape.layers, machine,
                           f"{one.rows:,} rows of {one.tokens:,} tokens, {rows} at a time"))  # fmt: skip
    tokens = completions = pairs = 0.0
    for one in work:
        if one.trained:
            tokens += one.prompts * one.prompt + one.rows * one.tokens
            completions += one.rows * one.tokens
            pairs += one.prompts * one.prompt**2 / 2 + one.rows * one.tokens * (one.prompt + one.tokens / 2)
    # Forward, and backward by the activations only: the weights are frozen. Recomputing is one more forward pass.
    times_over = 6 if settings.optim.checkpoint_layers else 4
    updates = settings.loss.updates_per_batch
    flops = times_over * (shape.matrices * tokens + 2 * pairs * shape.queries * shape.layers) + 6 * table * completions
    passes = max(1.0, tokens / settings.optim.micro_batch_tokens)
    exps = tokens * 3 * shape.gate * shape.layers + 3 * pairs * shape.heads * shape.layers
    exps += 4 * completions * shape.vocabulary
    moved = 3 * passes * weights + 8 * adapters
    costs.append(_cost("update", updates * moved, updates * flops, updates * exps,
                       updates * passes * 150 * shape.layers, machine,
                       f"{tokens:,.0f} tokens, {completions:,.0f} of them completions"))  # fmt: skip
    return costs


def _cost(name: str, moved: float, flops: float, exps: float, launches: float, machine: Machine, what: str) -> Cost:
    share_bandwidth, share_flops = machine.reached
    memory_time = moved / (machine.bandwidth * share_bandwidth)
    flop_time = flops / (machine.flops * share_flops)
    small = exps * machine.elementwise + launches * machine.launch
    seconds = max(memory_time, flop_time) + small
    bound = "bandwidth" if memory_time > flop_time else "flops"
    if small > max(memory_time, flop_time):
        bound = "small operations"
    return Cost(name, moved, flops, seconds, bound, what)


# -- advice -------------------------------------------------------------------------------------------------


def advice(settings: config.Config, shape: Shape, machine: Machine) -> dict[str, Any] | None:
    """Dials, with values, that make the configuration fit; the least harmful ones first. None when nothing does."""
    turned: dict[str, Any] = {}

    def turn(key: str, value: Any) -> None:
        nonlocal settings
        settings = config.with_values(settings, {key: value})
        turned[key] = value

    for _ in range(100):
        now = memory(settings, shape, machine)
        if now.total <= machine.room:
            return turned
        fixed = now.total - max(now.while_sampling, now.while_learning)
        room = machine.room - fixed
        longest = max(one.prompt + one.tokens for one in phases(settings))
        moved = False
        if now.while_learning > room:
            tokens = settings.optim.micro_batch_tokens
            if not settings.optim.checkpoint_layers:
                turn("optim.checkpoint_layers", True)
                moved = True
            elif tokens > longest and now.pass_tokens > longest:
                turn("optim.micro_batch_tokens", max(longest, min(tokens, now.pass_tokens) // 2 // 256 * 256))
                moved = True
        if not moved and now.while_sampling > room and now.width > 1:
            # Rows queue for room: fewer at a time cost time, and nothing else.
            one_row = now.columns * now.token_bytes
            cache = math.floor(min(room - now.sampling, now.caches - one_row) / GB * 100) / 100
            if cache * GB >= 4 * one_row:
                turn("sampling.kv_gb", cache)
                moved = True
        if not moved:
            s = settings.sampling
            cut = {
                key: max(256, 3 * value // 4 // 64 * 64)
                for key, value in (
                    ("sampling.prompt_tokens", s.prompt_tokens),
                    ("sampling.propose_tokens", s.propose_tokens),
                    ("sampling.solve_tokens", s.solve_tokens),
                )
                if value > 256
            }
            if cut:
                for key, value in cut.items():
                    turn(key, value)
            elif now.width > 1:
                turn("sampling.max_rows", now.width // 2)
            elif settings.lora.rank > 8:
                turn("lora.rank", 8)
            elif settings.executor.workers != 1:
                turn("executor.workers", 1)
            else:
                return None
    return None


# -- the page -----------------------------------------------------------------------------------------------


def report(settings: config.Config, shape: Shape, machine: Machine) -> tuple[list[str], bool]:
    """The lines of `azr plan`, and whether the configuration fits."""
    m = memory(settings, shape, machine)
    keep = "recomputed in the backward pass" if settings.optim.checkpoint_layers else "kept"
    adapters = adapter_parameters(settings.lora, shape)
    bits = shape.quantized.get("bits", settings.model.bits)
    form = f"{bits} bits and scales" if machine.packed else "float32, as on every CPU"
    rows = [
        ("weights", m.weights, f"{shape.parameters / 1e9:.3g} G parameters, {form}"),
        (
            "adapters, two moments",
            m.adapters,
            f"{adapters / 1e6:.3g} M parameters of rank {settings.lora.rank}, float32",
        ),
    ]
    if m.merged:
        rows.append(("merged projections", m.merged, "adapters added for sampling, CPU only"))
    rows += [
        ("sampling: keys, values", m.caches, f"{m.width} rows of {m.columns:,} tokens, {_kilo(m.token_bytes)} a token"),
        ("sampling: beside them", m.sampling, "prefill, growth of the cache, logits"),
        ("learning: gradients", m.gradients, "float32"),
        ("learning: activations", m.activations, f"{m.pass_tokens:,} tokens a pass, blocks {keep}"),
        ("kept for reuse", m.buffers, "MLX's cache of freed memory, shared prefixes"),
        (
            "executor and Python",
            m.children,
            f"{settings.executor.workers or machine.cores} workers, one program at its limit",
        ),
    ]
    fits = m.total <= machine.room
    lines = [
        f"plan      {settings.name}: {settings.model.id} ({shape.source})",
        f"machine   {machine.name}, {machine.memory / GB:.0f} GB, of which {machine.room / GB:.1f} GB may be used"
        + (" (Metal's recommended working set)" if machine.kind == "metal" else ""),
        "",
        f"{'memory, every row at its longest':<33}{'GB':>7}",
        *(f"  {name:<31}{value / GB:7.2f}  {what}" for name, value, what in rows),
        f"  {'at most, sampling or learning':<31}{m.total / GB:7.2f}  of {machine.room / GB:.2f}: "
        + ("fits" if fits else "DOES NOT FIT"),
        "",
    ]
    if not fits:
        words = advice(settings, shape, machine)
        if words is None:
            lines += ["no dial makes this model fit: take a smaller one (azr config lists the presets)"]
        else:
            after = memory(config.with_values(settings, words), shape, machine).total
            sets = " ".join(f"--set {key}={config.written(value)}" for key, value in words.items())
            lines += [f"it fits, with {after / GB:.2f} GB, with", f"  {sets}"]
        lines.append("")
    return lines + _time_lines(settings, shape, machine), fits


def _time_lines(settings: config.Config, shape: Shape, machine: Machine) -> list[str]:
    half, whole = times(settings, shape, machine, 0.5), times(settings, shape, machine, 1.0)
    share_bandwidth, share_flops = machine.reached
    reached = "" if share_flops == 1 else f", of which {share_bandwidth:.0%} and {share_flops:.0%} are taken as reached"
    lines = [
        f"roofline  {machine.bandwidth / GB:.4g} GB/s, {machine.flops / 1e12:.3g} TFLOP/s ({machine.basis}){reached}",
        "          at half of the longest lengths; the last column at all of it",
        "",
        f"{'time of a step':<20}{'seconds':>9}  {'bound by':<17}{'GB moved':>9}{'TFLOP':>9}{'longest':>10}",
    ]
    for one, most in zip(half, whole, strict=True):
        lines.append(
            f"  {one.name:<18}{one.seconds:9.3g}  {one.bound:<17}{one.bytes / GB:9.3g}{one.flops / 1e12:9.3g}"
            f"{most.seconds:10.3g}  {one.what}"
        )
    total, longest = sum(one.seconds for one in half), sum(one.seconds for one in whole)
    lines += [
        f"  {'a step':<18}{total:9.3g}  {'':<35}{longest:10.3g}",
        f"  {settings.steps:,} steps: {_hours(total * settings.steps)}"
        + (f", stopped by minutes={settings.minutes:g}" if settings.minutes else "")
        + "; seeding and evaluation come on top, programs run beside the decoding",
    ]
    return lines


def _kilo(number: float) -> str:
    return f"{number / 1000:.0f} KB"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{seconds / 60:.1f} minutes"


def command(
    settings: config.Config, size_: str = "", chip: str = "", bandwidth: float = 0, flops: float = 0
) -> tuple[list[str], bool]:
    """`azr plan`: the lines and whether it fits. bandwidth in GB/s, flops in TFLOP/s. Raises AzrError."""
    shape = shape_of(settings.model)
    if size_ or chip:
        given = size(size_) if size_ else 0.0
        if not given:
            raise UsageError("plan: --chip describes another machine: say how much memory it has with --memory 48GB")
        known = chip if not (bandwidth and flops) or chip.lower() in map(str.lower, APPLE) else ""
        machine = mac(given, known)
    else:
        machine = here()
    if machine.memory <= 0:
        raise AzrError("this machine does not say how much memory it has: give --memory 48GB")
    if bandwidth or flops:
        machine = replace(
            machine,
            bandwidth=bandwidth * GB or machine.bandwidth,
            flops=flops * 1e12 or machine.flops,
            basis="given" if bandwidth and flops else f"{'bandwidth' if bandwidth else 'flops'} given",
        )
    return report(settings, shape, machine)
