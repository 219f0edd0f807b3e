"""Pre-train the embedded nano model from nothing: `make nano`.

    python checkpoints/qwen3-nano/pretrain.py --out checkpoints/qwen3-nano

A Qwen3 of 1.1 M parameters reads worked examples from `grammar.py` and learns to write the replies in them. The last
part of the schedule trains through the 4-bit grid (straight-through rounding, Bengio et al. 2013, section 4), so that
the quantized weights that are shipped are the ones that were trained. Writes the tokenizer, the 4-bit MLX weights in
the Hugging Face layout, the probe set and a log. Every random choice derives from --seed; --state keeps a file from
which an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import grammar  # noqa: E402

from azr_mlx.types import GB, Kind, Role  # noqa: E402

PAIRS, REFERENCES = 6, 2  # as in configs/nano.yaml
VOCABULARY = 416
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PAD, END = 0, 2
LONGEST = 224
MIX = (  # share of the examples, and weight of a written token in the loss
    (Role.SOLVE, Kind.DEDUCTION, 0.28, 1.0),
    (Role.SOLVE, Kind.ABDUCTION, 0.26, 1.0),
    (Role.SOLVE, Kind.INDUCTION, 0.26, 1.0),
    (Role.PROPOSE, Kind.DEDUCTION, 0.05, 0.4),
    (Role.PROPOSE, Kind.ABDUCTION, 0.05, 0.4),
    (Role.PROPOSE, Kind.INDUCTION, 0.10, 0.4),
)
# A fence is one token, a digit is one token, a capital is one token (strings are spelt in capitals). Keywords and
# punctuation swallow the spaces around them, so that a variable is the same token everywhere.
SPLIT = r"```[a-z]*\n|\n```\n|\n[ ]*| ?(?:def|return|for|in|if) |[a-z_]+|[A-Z]|[0-9]| ?[^\sA-Za-z0-9_`]+ ?|[ ]+|`+|\s+"
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 128,
    "num_hidden_layers": 5,
    "intermediate_size": 384,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "attention_bias": False,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "vocab_size": VOCABULARY,
    "bos_token_id": None,
    "eos_token_id": END,
    "pad_token_id": PAD,
    "torch_dtype": "float32",
    "use_sliding_window": False,
}


Encoded = tuple[list[int], list[int], list[float]]  # token ids, the id to predict after each, its weight
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]  # the same of padded rows, each (rows, tokens)


def write_tokenizer(out: Path, seed: int) -> None:
    """Train a byte-level BPE on generated text and save it the way transformers reads it."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(grammar.tokenizer_text(random.Random(seed), 6000), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    # Prompts are whole texts, so a conversation is its texts in a row.
    fast.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    fast.save_pretrained(out)


def encode(tokenizer: Any, lesson: grammar.Example, weight: float) -> Encoded:
    """Token ids, the id to predict after each, and its weight in the loss (0 for text that is only read).

    After every written text the target is the end token, also where another turn follows.
    """
    tokens: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    for read, written in lesson.turns:
        read_ids, written_ids = tokenizer.encode(read).ids, tokenizer.encode(written).ids
        tokens += read_ids + written_ids
        targets += [PAD] * (len(read_ids) - 1) + written_ids + [END]
        weights += [0.0] * (len(read_ids) - 1) + [weight] * (len(written_ids) + 1)
    return tokens, targets, weights


_tokenizer: Any = None


def start_worker(path: str) -> None:
    global _tokenizer
    from tokenizers import Tokenizer

    _tokenizer = Tokenizer.from_file(path)


def pool_of_batches(job: tuple[int, int, float, float, int]) -> list[Batch]:
    """Sixteen batches of about `batch_tokens` tokens: lessons of like length together, batches in random order."""
    seed, index, worked, deductions, batch_tokens = job
    rng = random.Random(f"{seed}/{index}")
    shares = [row[2] for row in MIX]
    rest = (1 - deductions) / (sum(shares) - shares[0])
    shares = [deductions, *(share * rest for share in shares[1:])]
    lessons: list[Encoded] = []
    while sum(len(lesson[0]) for lesson in lessons) < 16 * batch_tokens:
        role, kind, _, weight = rng.choices(MIX, shares)[0]
        lesson = grammar.example(rng, role, kind, pairs=PAIRS, references=REFERENCES, worked=worked)
        encoded = encode(_tokenizer, lesson, weight)
        if len(encoded[0]) <= LONGEST:
            lessons.append(encoded)
    lessons.sort(key=lambda lesson: len(lesson[0]))
    batches: list[Batch] = []
    rows: list[Encoded] = []
    for row in lessons:
        if rows and (len(rows) + 1) * bucket(len(row[0])) > batch_tokens:
            batches.append(pad(rows))
            rows = []
        rows.append(row)
    batches.append(pad(rows))
    rng.shuffle(batches)
    return batches


def bucket(length: int) -> int:
    return -(-length // 16) * 16


def pad(rows: list[Encoded]) -> Batch:
    length = bucket(max(len(row[0]) for row in rows))
    tokens, targets = np.zeros((2, len(rows), length), np.int32)
    weights = np.zeros((len(rows), length), np.float32)
    for i, (a, b, c) in enumerate(rows):
        tokens[i, : len(a)], targets[i, : len(b)], weights[i, : len(c)] = a, b, c
    return tokens, targets, weights


def all_batches(
    tokenizer_file: Path, seed: int, start: tuple[int, int], worked: float, deductions: float, batch_tokens: int
) -> Iterator[Any]:
    """Endless batches, made in another process while this one trains, each with its place (pool, number in it).

    `start` is the place of the first one.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, start_worker, (str(tokenizer_file),)) as pool:
        queue: list[Any] = []
        made, index = start[0], start[0]
        while True:
            while len(queue) < 3:
                queue.append(pool.apply_async(pool_of_batches, ((seed, made, worked, deductions, batch_tokens),)))
                made += 1
            for number, batch in enumerate(queue.pop(0).get()):
                if (index, number) >= start:
                    yield (index, number), batch
            index += 1


def held_out_lessons(tokenizer: Any, count: int) -> dict[str, Batch]:
    """Deduction on held-out programs with right answers: given at once (`direct`), and `worked` out first."""
    lessons: dict[str, list[Any]] = {"direct": [], "worked": []}
    for task in grammar.probe_tasks(1, count, PAIRS):
        if task.kind is Kind.DEDUCTION:
            prompt = grammar.COMPACT.solve(task)
            answer = grammar.COMPACT.reply(prompt, task.cases[0].output)
            steps = {"direct": "", "worked": grammar.work_out(task.program, task.cases[0].input)}
            for name, row in lessons.items():
                turn = (prompt.text, steps[name] + answer)
                row.append(encode(tokenizer, grammar.Example(Role.SOLVE, task.kind, (turn,)), 1.0))
    return {name: pad(row) for name, row in lessons.items()}


def plain_weights(folder: Path) -> dict[str, Any]:
    """The weights of a 4-bit model as f32 matrices, by name."""
    import mlx.core as mx

    stored = mx.load(str(folder / "model.safetensors"))
    assert isinstance(stored, dict)
    plain = {}
    for name, value in stored.items():
        layer, _, part = name.rpartition(".")
        if part in ("scales", "biases"):
            continue
        if f"{layer}.scales" in stored:
            value = mx.dequantize(value, stored[f"{layer}.scales"], stored[f"{layer}.biases"], group_size=64, bits=4)
        plain[name] = value
    return plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="adamw")
    parser.add_argument("--lr", type=float, default=0.003, help="of the matrices (muon) or of everything (adamw)")
    parser.add_argument("--worked", type=float, default=0.0, help="share of deductions worked out line by line")
    parser.add_argument("--deductions", type=float, default=MIX[0][2], help="share of deductions among the examples")
    parser.add_argument("--decay", type=float, default=0.3, help="last share of the steps in which the rate falls to 0")
    parser.add_argument("--grid", type=float, default=0.12, help="last share of the steps trained on the 4-bit grid")
    parser.add_argument("--init", type=Path, help="folder of a finished model whose weights to go on from")
    parser.add_argument("--state", type=Path, help="file to go on from, and to write every 250 steps")
    parser.add_argument("--log", type=Path)
    args = parser.parse_args()

    from azr_mlx.model import device

    profile = device.prepare()
    device.blas_threads(1)  # of so small a model; two that wait for each other spin
    import mlx.core as mx
    import mlx.nn as nn
    import mlx.optimizers as optim
    from mlx.utils import tree_flatten, tree_map_with_path, tree_unflatten
    from mlx_lm.models import qwen3
    from mlx_lm.utils import quantize_model
    from tokenizers import Tokenizer

    from azr_mlx.model import cpu_kernels

    args.out.mkdir(parents=True, exist_ok=True)
    log_file = (args.log or args.out / "pretrain.log").open("a")

    def log(**row: Any) -> None:
        line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()})
        print(line, flush=True)
        print(line, file=log_file, flush=True)

    if args.init and args.init.resolve() != args.out.resolve():
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(args.init / name, args.out / name)
    elif not args.init and not (args.state and args.state.exists()):
        write_tokenizer(args.out, args.seed)
    tokenizer = Tokenizer.from_file(str(args.out / "tokenizer.json"))
    if profile.name == "cpu":
        device.limit_cache(2 * GB)
    mx.random.seed(args.seed)
    model = qwen3.Model(qwen3.ModelArgs.from_dict(CONFIG))
    cpu_kernels.fit(model)
    for path, weight in tree_flatten(model.parameters()):
        if weight.ndim == 2:  # GPT-2's 0.02, smaller where a residual is written
            std = 0.02 if "o_proj" not in path and "down_proj" not in path else 0.02 / math.sqrt(8)
            model.update(tree_unflatten([(path, mx.random.normal(weight.shape) * std)]))

    if args.init:
        model.update(tree_unflatten(list(plain_weights(args.init).items())))

    schedule_end, falling = args.steps, args.decay * args.steps

    def rate(step: int) -> float:
        return float(min(1.0, (step + 1) / 100, max(0.0, (schedule_end - step) / falling)))

    small_lr = 0.004 if args.optimizer == "muon" else args.lr
    small = optim.AdamW(small_lr, betas=[0.9, 0.98], weight_decay=0.0, bias_correction=True)
    big = (
        optim.Muon(args.lr, momentum=0.95, weight_decay=0.01)
        if args.optimizer == "muon"
        else optim.AdamW(args.lr, betas=[0.9, 0.98], weight_decay=0.05, bias_correction=True)
    )
    optimizer = optim.MultiOptimizer([big, small], [lambda path, w: w.ndim == 2 and "embed" not in path])
    optimizer.init(model.trainable_parameters())
    start, place = 0, (0, 0)
    if args.state and args.state.exists():
        saved, meta = mx.load(str(args.state), return_metadata=True)
        start, place = int(meta["step"]), (int(meta["pool"]), int(meta["number"]) + 1)
        model.update(tree_unflatten([(k[2:], v) for k, v in saved.items() if k.startswith("m.")]))
        optimizer.state = tree_unflatten([(k[2:], v) for k, v in saved.items() if k.startswith("o.")])

    def on_grid(path: str, weight: Any) -> Any:
        if weight.ndim != 2:
            return weight
        return mx.dequantize(*mx.quantize(weight, group_size=64, bits=4), group_size=64, bits=4)

    def loss(model: Any, tokens: Any, rows: Any, targets: Any, weights: Any) -> Any:
        hidden = model.model(tokens).reshape(-1, CONFIG["hidden_size"])[rows]
        logits = model.model.embed_tokens.as_linear(hidden)
        negative = mx.logsumexp(logits, -1) - mx.take_along_axis(logits, targets[:, None], -1)[:, 0]
        return (negative * weights).sum() / weights.sum()

    gradient = nn.value_and_grad(model, loss)
    probes = held_out_lessons(tokenizer, 256)

    def held_out() -> dict[str, float]:
        """Held-out deductions: the chance of the whole right text given its first token, answered at once (`direct`)
        and worked out, and the chance of beginning to answer at once (`habit`)."""
        found = {}
        for name, (tokens, targets, weights) in probes.items():
            first = (weights > 0).argmax(-1)
            later = weights.copy()
            later[np.arange(len(later)), first] = 0
            logits = model(mx.array(tokens))
            ids, counted = mx.array(targets), mx.array(later)
            chosen = mx.take_along_axis(logits, ids[..., None], -1)[..., 0] - mx.logsumexp(logits, -1)
            found[f"{name}_t1"] = mx.exp((chosen * counted).sum(-1)).mean().item()
            found[f"{name}_greedy"] = mx.all((logits.argmax(-1) == ids) | (counted == 0), -1).mean().item()
            if name == "direct":
                found["habit"] = mx.exp(chosen[mx.arange(len(first)), mx.array(first)]).mean().item()
        return found

    log(
        event="start",
        device=profile.device_name,
        mlx=mx.__version__,
        start=start,
        **{k: str(v) for k, v in vars(args).items()},
    )
    began, seen, running = time.time(), 0, 0.0
    batches = all_batches(
        args.out / "tokenizer.json", args.seed, place, args.worked, args.deductions, args.batch_tokens
    )
    for step, (place, (tokens, targets, weights)) in zip(range(start, args.steps), batches, strict=False):
        for part, base in ((big, args.lr), (small, small_lr)):
            part.learning_rate = base * rate(step)
        rows = np.flatnonzero(weights)
        data = (tokens, rows, targets.reshape(-1)[rows], weights.reshape(-1)[rows])
        master = None
        if step >= (1 - args.grid) * args.steps:  # the gradient at the grid point moves the master weights
            master = model.parameters()
            model.update(tree_map_with_path(on_grid, master))
        value, grads = gradient(model, *map(mx.array, data))
        grads, _ = optim.clip_grad_norm(grads, 1.0)
        if master is not None:
            model.update(master)
        optimizer.update(model, grads)
        mx.eval(value, model.state, optimizer.state)
        seen += int((tokens != PAD).sum())
        running += value.item()
        if (step + 1) % 100 == 0:
            log(
                step=step + 1, loss=running / 100, lr=rate(step), tokens=seen, seconds=time.time() - began, **held_out()
            )
            running = 0.0
        if args.state and ((step + 1) % 250 == 0):
            state = {f"m.{k}": v for k, v in tree_flatten(model.parameters())}
            state |= {f"o.{k}": v for k, v in tree_flatten(optimizer.state)}
            meta = {"step": str(step + 1), "pool": str(place[0]), "number": str(place[1])}
            mx.save_safetensors(str(args.state.with_suffix(".new.safetensors")), state, metadata=meta)
            args.state.with_suffix(".new.safetensors").replace(args.state)

    model, config = quantize_model(model, dict(CONFIG), 64, 4)
    log(event="quantized", seconds=time.time() - began, **held_out())
    weights_out = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(args.out / "model.safetensors"), weights_out, metadata={"format": "mlx"})
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (args.out / "generation_config.json").write_text(json.dumps({"eos_token_id": END, "pad_token_id": PAD}) + "\n")
    with (args.out / "probe.jsonl").open("w") as file:
        for task in grammar.probe_tasks(1, 128, PAIRS):
            file.write(json.dumps(asdict(task)) + "\n")


if __name__ == "__main__":
    main()
