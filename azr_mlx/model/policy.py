"""The policy: a quantized language model with LoRA adapters, its tokenizer, how it samples and how it learns.

It reads prompts as text and writes completions; it never sees a program's meaning, a verdict or a reward, only the
advantages that the trainer computed from them.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from azr_mlx import config, types
from azr_mlx.errors import AzrError
from azr_mlx.model import device

device.prepare()  # before the first import of mlx.core: it loads the fast BLAS

import mlx.core as mx  # noqa: E402
import mlx.nn as nn  # noqa: E402
import mlx.optimizers as optimizers  # noqa: E402
from mlx.utils import tree_flatten, tree_unflatten  # noqa: E402
from mlx_lm.tuner.lora import LoRALinear  # noqa: E402
from mlx_lm.tuner.utils import linear_to_lora_layers  # noqa: E402

from azr_mlx.model import cpu_kernels, retention, rope, sampler, weights, work  # noqa: E402
from azr_mlx.model import loss as losses  # noqa: E402
from azr_mlx.model.adapter_config import ADAPTER_CONFIG  # noqa: E402
from azr_mlx.model.adapters import adapt  # noqa: E402
from azr_mlx.model.backbone import Backbone  # noqa: E402
from azr_mlx.model.held import OPTIONS, Keep  # noqa: E402
from azr_mlx.model.limits import TILE_ROWS  # noqa: E402
from azr_mlx.model.packing import Batch, Example, Pack, micro_batches  # noqa: E402
from azr_mlx.model.trunk import Gradients  # noqa: E402
from azr_mlx.types import GB  # noqa: E402

ADAPTER, OPTIMIZER = "adapter.", "optim."
# Tags of the paper's prompt that Qwen 3 base models have as single tokens with untrained embeddings.
TAGS = ("<think>", "</think>", "<answer>", "</answer>", "<tool_call>", "</tool_call>")

Progress = Callable[[int, int, int], None]  # rows finished, rows in all, tokens written


class GenerationSession:
    """Completions under way, by `Policy.generate`. Iterate to write them; `submit` may add prompts meanwhile."""

    def __init__(
        self, policy: Policy, decoder: sampler.Decoder | work.ItemWriter, progress: Progress | None = None
    ) -> None:
        self._policy = policy
        self._decoder = decoder
        self._progress = progress
        self._submitted: list[tuple[types.Prompt, tuple[int, ...]]] = []  # by number, with its tokens
        self._numbers: dict[int, int] = {}  # the name that keys a prompt's draws -> its number
        self._rows = 0

    def submit(
        self,
        prompts: Sequence[types.Prompt],
        n: int | Sequence[int] = 1,
        *,
        max_tokens: int | Sequence[int],
        names: Sequence[int] = (),
    ) -> None:
        """Add prompts with n completions of each (n, max_tokens: of all prompts, or one number each).

        names: the numbers that key the prompts' draws, each once, where a prompt's number in the order of submission
        will not do. Raises ValueError when lengths differ or a name comes twice.
        """
        limits = [max_tokens] * len(prompts) if isinstance(max_tokens, int) else list(max_tokens)
        counts = [n] * len(prompts) if isinstance(n, int) else list(n)
        first = len(self._submitted)
        names = names or range(first, first + len(prompts))
        for what, values in (("max_tokens", limits), ("n", counts), ("names", names)):
            if len(values) != len(prompts):
                raise ValueError(f"{len(prompts)} prompts but {len(values)} values of {what}")
        if len({*self._numbers, *names}) != first + len(prompts):
            raise ValueError("a name keys the draws of one prompt, and one of these comes twice")
        requests = []
        for prompt, name, limit, count in zip(prompts, names, limits, counts, strict=True):
            tokens = tuple(self._policy.encode(prompt.text))
            self._policy.check_length(len(tokens) + limit)
            self._numbers[name] = len(self._submitted)
            self._submitted.append((prompt, tokens))
            requests += [sampler.Request(tokens, (name, j), limit, prompt.stop) for j in range(count)]
        self._rows += len(requests)
        self._decoder.add(requests)

    def __iter__(self) -> Iterator[tuple[int, int, types.Rollout]]:
        """(number of the prompt, sample, rollout) as rows end, until nothing is left to write."""
        ended = written = 0
        while self._decoder.busy:
            for row in self._decoder.step():
                ended, written = ended + 1, written + len(row.tokens)
                if self._progress is not None:
                    self._progress(ended, self._rows, written)
                number, sample = self._numbers[row.key[0]], row.key[1]
                text = self._policy.decode(row.tokens[:-1] if row.stop is types.Stop.EOS else row.tokens)
                completion = types.Completion(row.tokens, row.logprobs, text, row.stop)
                yield number, sample, types.Rollout(*self._submitted[number], completion)


class Policy:
    """Model, adapters, tokenizer, optimizer. Build one with `Policy.load`."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        profile: device.Profile,
        settings: Mapping[str, Any],
        folder: Path,
        model_config: config.ModelConfig,
        lora: config.LoraConfig,
        optim: config.OptimConfig,
        sampling: config.SamplingConfig,
        loss: config.LossConfig,
        seed: int = 0,
        total_steps: int = 0,
    ) -> None:
        self.profile = profile
        self.model = model
        self.tokenizer = tokenizer
        self.settings = settings
        self.folder = folder
        self.config = model_config
        self.lora = lora
        self.optim = optim
        self.sampling = sampling
        self.loss = loss
        self.total_steps = total_steps
        embeddings = rope.read(weights.read_config(folder), str(folder / "config.json"))
        self.context = embeddings.context if embeddings is not None else None
        model.freeze()
        keys = list(lora.keys)
        self._check_keys(keys)
        parameters = {"rank": lora.rank, "scale": lora.scale, "dropout": 0.0, **({"keys": keys} if keys else {})}
        linear_to_lora_layers(model, lora.layers, parameters)
        adapt(model)
        self.lora_parameters = parameters
        self._seed_adapters(seed)
        self.backbone = self._view(model)
        activation = device.activation_dtype(model_config.dtype, profile).size
        plain = self.backbone.plain
        self.retention = retention.retention_of(self.backbone, profile.packed, activation) if plain else None
        self.optimizer = optimizers.AdamW(
            learning_rate=optim.lr,
            betas=[optim.beta1, optim.beta2],
            weight_decay=optim.weight_decay,
            bias_correction=True,  # as in torch; off by default in MLX
        )
        self.optimizer.init(model.trainable_parameters())
        mx.eval(model.parameters(), self.optimizer.state)
        self.stop_tokens = frozenset(int(t) for t in tokenizer.eos_token_ids)
        self.last_count = sampler.Count()
        self.computer: work.Computer = work.Here(self)
        self.weights_version = 0  # grows whenever the adapters change
        self._actor: Backbone | None = None
        self._prefixes: sampler.Prefixes = {}  # of the present weights
        self._plain_text = self._tokenizer_without_tags() if config.load_style(model_config.style).tags else None
        self._before: list[int] | None = None  # tokens that stand before every text
        self._head: str | None = None
        self._ends_stop: dict[tuple[str, ...], dict[int, bool]] = {}

    @classmethod
    def load(
        cls,
        model: config.ModelConfig,
        lora: config.LoraConfig,
        optim: config.OptimConfig,
        sampling: config.SamplingConfig,
        loss: config.LossConfig,
        *,
        seed: int = 0,
        total_steps: int = 0,
        adapter: Path | None = None,
    ) -> Policy:
        """Load a model by folder or repository name and put fresh adapters on it, or those of the folder `adapter`.

        lora_b starts at zero, so a fresh policy is the model itself; lora_a is drawn from `seed`.
        Raises weights.ModelNotFound, or ValueError when the adapter does not fit.
        """
        profile = device.prepare()
        network, tokenizer, settings, folder = weights.open_model(model, profile)
        policy = cls(
            network, tokenizer, profile=profile, settings=settings, folder=folder, model_config=model, lora=lora,
            optim=optim, sampling=sampling, loss=loss, seed=seed, total_steps=total_steps,
        )  # fmt: skip
        if adapter is not None:
            policy.load_adapter(adapter)
        return policy

    def _view(self, model: nn.Module) -> Backbone:
        """The parts of a model. Raises AzrError for one whose parts are not the whole, as this package computes it."""
        kind = self.settings.get("model_type", type(model).__module__.rpartition(".")[2])
        try:
            backbone = Backbone(model)
            wrong = "" if backbone.plain else backbone.difference()
        except TypeError as error:
            wrong = str(error)
        if wrong:
            raise AzrError(f"{self.config.id} is of a kind ({kind}) that cannot be sampled and trained here: {wrong}")
        return backbone

    # Text -----------------------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """Text to token ids. What the tokenizer puts before a text (a beginning-of-text token) stands before it unless
        the text has it already; what it would put behind a text (some append an end token) does not: the model is to
        go on from there."""
        if self._before is None:
            self._before = self._tokens_before()
        ids = self._ids(text, special=False)
        return ids if self._begins_itself(text) else [*self._before, *ids]

    def _ids(self, text: str, *, special: bool) -> list[int]:
        if self._plain_text is not None:
            return list(self._plain_text.encode(text, add_special_tokens=special).ids)
        return list(self.tokenizer.encode(text, add_special_tokens=special))

    def _tokens_before(self) -> list[int]:
        """The tokens that the tokenizer puts before every text."""
        plain, full = self._ids("a", special=False), self._ids("a", special=True)
        for start in range(len(full) - len(plain) + 1):
            if full[start : start + len(plain)] == plain:
                return full[:start]
        return []

    def _begins_itself(self, text: str) -> bool:
        """Whether a text has its own beginning: the token for it, or what the chat template begins with.

        A template writes that token itself or means to do without (as in mlx_lm and transformers).
        """
        bos, head = self.tokenizer.bos_token, self._template_head()
        return bool(bos and text.lstrip().startswith(bos)) or bool(head and text.startswith(head))

    def _template_head(self) -> str:
        """What the chat template writes before the first word of a user; empty without a template."""
        if self._head is None:
            mark = "\u2063user\u2063"
            try:
                self._head = self.render_chat(mark).partition(mark)[0] if self.tokenizer.has_chat_template else ""
            except Exception:  # whatever a model's own template raises
                self._head = ""
        return self._head

    def decode(self, tokens: Sequence[int]) -> str:
        """Token ids to text, special tokens included."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def render_chat(self, user_text: str, prefill: str = "", earlier: Sequence[tuple[str, str]] = ()) -> str:
        """A conversation in the model's chat template: questions and replies `earlier`, a user message, and the
        beginning of its reply (`prefill`).

        Raises ValueError when the tokenizer has no chat template.
        """
        if not self.tokenizer.has_chat_template:
            raise ValueError(f"{self.config.id} has no chat template: use model.style r1, text-direct or compact")
        spoken = [text for turn in earlier for text in turn]
        text = self.tokenizer.apply_chat_template(
            [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate([*spoken, user_text])],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=self.config.thinking,
        )
        return str(text) + prefill

    def render_messages(self, messages: Sequence[Mapping[str, str]]) -> str:
        """A conversation in the model's chat template, with the reply to come. A last message of the assistant's is
        the beginning of the reply.

        Raises AzrError when the tokenizer has no chat template.
        """
        if not self.tokenizer.has_chat_template:
            raise AzrError(f"{self.config.id} has no chat template: give prompts as text, not as messages")
        begun = messages[-1]["role"] == "assistant"
        return str(
            self.tokenizer.apply_chat_template(
                [dict(one) for one in messages], tokenize=False, add_generation_prompt=not begun,
                continue_final_message=begun, enable_thinking=self.config.thinking,
            )
        )  # fmt: skip

    def _tokenizer_without_tags(self) -> Any:
        """The tokenizer with think and answer tags as ordinary text, or None when they are ordinary already."""
        try:
            description = json.loads(self.tokenizer.backend_tokenizer.to_str())
        except AttributeError:
            return None
        kept = [token for token in description.get("added_tokens", []) if token["content"] not in TAGS]
        if len(kept) == len(description.get("added_tokens", [])):
            return None
        from tokenizers import Tokenizer

        return Tokenizer.from_str(json.dumps({**description, "added_tokens": kept}))

    # Sampling -------------------------------------------------------------------------------------------------

    def sample(
        self,
        prompts: Sequence[types.Prompt],
        n: int | Sequence[int] = 1,
        *,
        seed: Sequence[int],
        max_tokens: int | Sequence[int],
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        progress: Progress | None = None,
        names: Sequence[int] = (),
    ) -> Iterator[tuple[int, int, types.Rollout]]:
        """Write n completions of every prompt; yields (prompt index, sample index, rollout) as rows end.

        n: of all prompts, or one number each. seed: words such as (run seed, step, phase). The draw of a token is
        keyed by them, both indices and the position. max_tokens: of all prompts, or one number each. temperature 0 is
        greedy. stop: texts that end every completion, beside those of its prompt; they stay in it. progress: called
        with (rows finished, rows in all, tokens written) as rows end. names: the numbers that key the prompts' draws,
        each once, where a prompt's index will not do: a part of the prompts then gives the same samples as all of them.
        """
        session = self.generate(seed=seed, temperature=temperature, top_p=top_p, stop=stop, progress=progress)
        session.submit(prompts, n, max_tokens=max_tokens, names=names)
        return iter(session)

    def generate(
        self,
        *,
        seed: Sequence[int],
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> GenerationSession:
        """A session in which prompts may be submitted while others are answered; its options are those of `sample`."""
        self.last_count = sampler.Count()
        settings = work.WritingItem(
            tuple(seed), (), tuple(stop), temperature, top_p,
            max_rows=self.sampling.max_rows,
            kv_bytes=int(self.sampling.kv_gb * GB),
            tile=self.sampling.tile_rows or (TILE_ROWS if device.prepare().name == "metal" else 1),
        )  # fmt: skip
        decoder: sampler.Decoder | work.ItemWriter
        if self.sampling.item_rows:
            decoder = work.ItemWriter(self.computer, settings, self.sampling.item_rows)
        else:
            decoder = settings.decoder(self, self.last_count)
        return GenerationSession(self, decoder, progress)

    def sample_all(self, prompts: Sequence[types.Prompt], n: int = 1, **options: Any) -> list[list[types.Rollout]]:
        """What `sample` yields, in order: n rollouts of each prompt."""
        groups: list[list[types.Rollout | None]] = [[None] * n for _ in prompts]
        for i, j, rollout in self.sample(prompts, n, **options):
            groups[i][j] = rollout
        return groups  # type: ignore[return-value]

    def shrink(self) -> str:
        """Hold less at once from now on: half the rows together, half the tokens of a micro-batch.

        Returns how much is left, or nothing when it cannot be less. Draws and gradients stay the same up to rounding.
        """
        rows = max(1, self.sampling.max_rows // 2)
        tokens = max(min(512, self.optim.micro_batch_tokens), self.optim.micro_batch_tokens // 2)
        if (rows, tokens) == (self.sampling.max_rows, self.optim.micro_batch_tokens):
            return ""
        self.sampling = replace(self.sampling, max_rows=rows)
        self.optim = replace(self.optim, micro_batch_tokens=tokens)
        return f"{rows} rows at a time and {tokens:,} tokens a micro-batch from now on"

    def check_length(self, tokens: int) -> None:
        """Raise AzrError for a row that is longer than the model's position embeddings are computed for exactly."""
        if self.context is not None and tokens > self.context:
            raise AzrError(
                f"a prompt and its completion may take {tokens} tokens, but the position embeddings of "
                f"{self.config.id} change beyond {self.context}: lower sampling.prompt_tokens, or the limit of a "
                "completion"
            )

    def stop_text(self, texts: tuple[str, ...]) -> Callable[[Sequence[int]], bool] | None:
        """Whether a row's text holds a stop text that its last token completed; None without stop texts.

        Only a token whose text holds the last character of a stop text can complete one; the rest cost one lookup.
        A token writes at least one byte, so a stop text lies within its last len(bytes) tokens, one more for a
        character that is cut.
        """
        if not texts:
            return None
        endings = self._ends_stop.setdefault(texts, {})
        last = {text[-1] for text in texts}
        reach = max(len(text.encode()) for text in texts) + 1

        def stopped(tokens: Sequence[int]) -> bool:
            token = tokens[-1]
            if token not in endings:
                piece = self.decode([token])
                endings[token] = "\ufffd" in piece or any(character in piece for character in last)
            if not endings[token]:
                return False
            tail = self.decode(tokens[-reach:])
            return any(text in tail for text in texts)

        return stopped

    def acting(self) -> Backbone:
        """The model that samples. On a CPU its weights are dense, so the adapters are added into a second set of
        projections (all else is shared): a third of the matmuls of each layer. Packed weights cannot take them."""
        if self.profile.packed or not all(isinstance(layer, LoRALinear) for layer in self._adapted()):
            return self.backbone  # as with the experts of a mixture, whose adapters are laid out in another way
        if self._actor is None:
            self._actor = Backbone(_merged(self.model))
        return self._actor

    def prefixes(self) -> sampler.Prefixes:
        """Prefixes of prompts, remembered while the weights are the same."""
        return self._prefixes

    def _forget(self) -> None:
        """Drop what was computed from adapters that have changed."""
        self.weights_version += 1
        self._actor = None
        self._prefixes = {}

    @contextlib.contextmanager
    def reference(self) -> Iterator[None]:
        """Within it the policy is the reference: the same weights, adapters off, equal to the base bit for bit."""
        layers = self._adapted()
        scales = [layer.scale for layer in layers]
        (actor, self._actor), (prefixes, self._prefixes) = (self._actor, None), (self._prefixes, {})
        try:
            for layer in layers:
                layer.scale = 0.0
            yield
        finally:
            for layer, scale in zip(layers, scales, strict=True):
                layer.scale = scale
            self._actor, self._prefixes = actor, prefixes

    # Learning -------------------------------------------------------------------------------------------------

    def logprobs(self, rollouts: Sequence[types.Rollout], *, reference: bool = False) -> list[np.ndarray]:
        """Log-probabilities of all completion tokens by the trainer or the reference: float32 (K,) for each rollout."""
        rows = [_row(rollout, 0.0) for rollout in rollouts]
        packs = self._packs(rows)
        under_way = [
            self.computer.submit(work.LogprobItem(work.MicroBatch.of(rows, pack), reference)) for pack in packs
        ]
        result: list[np.ndarray] = [np.zeros(0, np.float32)] * len(rows)
        for pack, wait in zip(packs, under_way, strict=True):
            for i, values in zip(pack.rows, wait(), strict=True):
                result[i] = values
        return result

    def update(self, rollouts: Sequence[types.Rollout], advantages: Sequence[float]) -> types.Update:
        """One policy-gradient step (`loss.updates_per_batch` of them) on rollouts with one advantage each.

        The loss is the mean over the completion tokens of ALL rollouts. Those with advantage exactly 0 count in that
        mean but are not computed, unless a KL or entropy term gives them a gradient.

        Old logprobs. With one update on a batch the trainer's own logprobs are the old ones, at no cost, and the gap
        to the sampler's is measured. With more updates the sampler's are, or with `recompute_old_logprobs` the
        trainer's before the first; then each token also weighs min(trainer / sampler, importance_cap).
        A gradient that is not finite changes nothing: its norm (nan or inf) says so.
        Raises ValueError when lengths differ or nothing was written.
        """
        started = time.perf_counter()
        if len(rollouts) != len(advantages):
            raise ValueError(f"{len(rollouts)} rollouts but {len(advantages)} advantages")
        if not all(math.isfinite(a) for a in advantages):
            raise ValueError("an advantage is not finite")
        denominator = sum(len(rollout.completion.tokens) for rollout in rollouts)
        if not denominator:
            raise ValueError("no completion tokens to learn from")
        self._prefixes = {}  # frees memory, and keeps what is computed next independent of what was sampled before
        if self.retention is None:
            device.reset_peak()
        else:
            self.retention.reset()
        objective = self._objective()
        rows = self._examples(rollouts, advantages, objective)
        micro_batches = [work.MicroBatch.of(rows, pack) for pack in self._packs(rows)]
        items = work.gradient_items(
            micro_batches,
            objective,
            keep=OPTIONS.get(self.optim.checkpoint_layers),
            items=self.optim.gradient_items,
        )
        passes = [self._one_step(items, denominator) for _ in range(self.loss.updates_per_batch)]
        # Of the first pass: later ones measure how far the updates moved, not how far the sampler was off.
        (first, _, _), (sums, norm, rate) = passes[0], passes[-1]
        tokens = max(1, sums.tokens)
        measured = bool(sums.tokens)
        return types.Update(
            loss=sums.loss / denominator,
            grad_norm=norm,
            learning_rate=rate,
            entropy=sums.entropy / tokens if measured else math.nan,
            kl=sums.kl / tokens if self.loss.kl and measured else math.nan,
            delta_logp_mean=first.delta / tokens,
            delta_logp_max=first.delta_max,
            ratio_outside=first.outside / tokens,
            clipped=sums.clipped / tokens,
            rows=len(rows),
            tokens=sums.tokens,
            seconds=time.perf_counter() - started,
            peak_memory=max(device.memory().peak, self.retention.peak if self.retention else 0),
            work=self._work(rows, micro_batches),
            extra={
                "micro_batches": float(len(micro_batches)),
                "rows_skipped": float(len(rollouts) - len(rows)),
                "computed_tokens": float(sum(one.batch.computed for one in micro_batches)),
                "row_tokens": float(sum(map(len, rows))),
                "importance_capped": first.capped / tokens,
            },
        )

    def _work(self, rows: Sequence[Example], micro_batches: Sequence[work.MicroBatch]) -> dict[str, float]:
        """Tokens and operations of the last generation session and of an update, by the names of timings.jsonl."""
        count, batches = self.last_count, [one.batch for one in micro_batches]
        times = self.loss.updates_per_batch
        tokens = {
            "prefill": count.prefill_tokens, "prefill/asked": count.prompt_tokens, "decode": count.decode_rows,
            "decode/kept": count.new_tokens, "update": times * sum(batch.computed for batch in batches),
            "update/slots": times * sum(batch.slots for batch in batches),
            "update/rows": times * sum(map(len, rows)),
            "update/prompts": times * sum(map(len, {row.prompt for row in rows})),
            "update/completions": times * sum(len(row.completion) for row in rows),
        }  # fmt: skip
        found = {f"tokens/{name}": float(number) for name, number in tokens.items()}
        found["rollouts"] = float(count.requests)
        if self.retention is not None:
            size, again = self.retention.dimensions, self.retention.again
            writing = size if self.profile.packed else replace(size, adapters=0)  # merged into the matrices
            flops = {
                "prefill": writing.forward(count.prefill_tokens, count.prefill_pairs) + size.head(count.prefills),
                "decode": writing.forward(count.decode_rows, count.decode_pairs) + size.head(count.decode_rows),
                "update": again
                + times * sum(size.gradient(batch.computed, batch.pairs, int(batch.targets.size)) for batch in batches),
            }
            found |= {f"flops/{name}": number for name, number in flops.items()}
            found |= {"flops/update/again": again, "flops/step": sum(flops.values())}
        return found

    @contextlib.contextmanager
    def holding(self, batch: Batch, told: Keep | None) -> Iterator[Keep]:
        """What to keep of the forward pass of a micro-batch that is computed within it: as told, or what fits."""
        if self.retention is None:
            yield Keep.ALL  # a trunk that runs as it is
            return
        with self.retention.holding(batch, told) as keep:
            yield keep

    def _objective(self) -> losses.Objective:
        settings = self.loss
        return losses.Objective(
            on_policy=settings.updates_per_batch == 1,
            clip_low=settings.clip_low,
            clip_high=settings.clip_high,
            entropy=settings.entropy,
            kl=settings.kl,
            importance_cap=settings.importance_cap if settings.recompute_old_logprobs else 0.0,
        )

    def _examples(
        self, rollouts: Sequence[types.Rollout], advantages: Sequence[float], objective: losses.Objective
    ) -> list[Example]:
        """The rows that are computed, with the log-probabilities that their objective wants."""
        chosen = [i for i, a in enumerate(advantages) if a != 0.0 or not objective.skips_zero_advantage]
        kept = [rollouts[i] for i in chosen]
        old: Sequence[np.ndarray | None] = [None] * len(chosen)
        reference: Sequence[np.ndarray | None] = [None] * len(chosen)
        if not objective.on_policy:
            old = (
                self.logprobs(kept)
                if self.loss.recompute_old_logprobs
                else [np.asarray(rollout.completion.logprobs, np.float32) for rollout in kept]
            )
        if objective.kl and chosen:
            reference = self.logprobs(kept, reference=True)
        rows = [_row(rollouts[i], float(advantages[i]), old[n], reference[n]) for n, i in enumerate(chosen)]
        return [row for row in rows if row.completion]

    def _packs(self, rows: Sequence[Example]) -> list[Pack]:
        return micro_batches(rows, self.optim.micro_batch_tokens, share=self.backbone.plain)

    def _one_step(self, items: Sequence[work.GradientItem], denominator: int) -> tuple[losses.Sums, float, float]:
        """Gradient over all micro-batches and one optimizer step: (sums, gradient norm, learning rate)."""
        under_way = [self.computer.submit(item) for item in items]
        gradients, sums = work.joined(wait() for wait in under_way)
        return sums, *self._apply(gradients, denominator)

    def _apply(self, gradients: Gradients, denominator: int) -> tuple[float, float]:
        """One optimizer step on sums of gradients: (norm of the mean gradient, learning rate)."""
        rate = self.learning_rate()
        if not gradients:
            # Nothing to learn. Moments and schedule stay as they are: a step of zeros would still move the weights.
            return 0.0, rate
        gradients = {name: g / denominator for name, g in gradients.items()}
        norm = mx.sqrt(mx.stack([mx.square(g).sum() for g in gradients.values()]).sum())
        if self.optim.grad_clip:
            factor = mx.minimum(self.optim.grad_clip / (norm + 1e-6), 1.0)
            gradients = {name: g * factor for name, g in gradients.items()}
        value = norm.item()
        if not math.isfinite(value):
            return value, rate  # the weights stay as they are; whoever reads the norm decides what follows
        self.optimizer.learning_rate = rate
        self.optimizer.update(self.model, tree_unflatten(list(gradients.items())))
        mx.eval(self.model.trainable_parameters(), self.optimizer.state)
        self._forget()
        return value, rate

    @property
    def updates(self) -> int:
        """Optimizer steps so far."""
        return int(self.optimizer.step.item())

    def learning_rate(self) -> float:
        """The rate of the next optimizer step: linear warm-up, then constant, or a decay.

        linear and cosine reach 0 at `total_steps`. inverse_sqrt, lr * sqrt(warm-up / step), needs no end (Vaswani et
        al. 2017, equation 3).
        """
        step = self.updates
        if step < self.optim.warmup_steps:
            return self.optim.lr * (step + 1) / self.optim.warmup_steps
        if self.optim.schedule == "constant":
            return self.optim.lr
        if self.optim.schedule == "inverse_sqrt":
            return self.optim.lr * math.sqrt(max(1, self.optim.warmup_steps) / max(1, step))
        last = self.total_steps * self.loss.updates_per_batch - self.optim.warmup_steps
        if last <= 0:
            return self.optim.lr
        done = min(1.0, (step - self.optim.warmup_steps) / last)
        if self.optim.schedule == "linear":
            return self.optim.lr * (1.0 - done)
        return self.optim.lr * 0.5 * (1.0 + math.cos(math.pi * done))

    # State ----------------------------------------------------------------------------------------------------

    def adapter(self) -> dict[str, mx.array]:
        """The adapters by parameter name."""
        return dict(tree_flatten(self.model.trainable_parameters()))

    def put_adapter(self, adapter: Mapping[str, mx.array]) -> None:
        """Take other adapters. Raises ValueError when names or shapes do not fit."""
        self._check_fit(adapter, self.adapter())
        self.model.load_weights(list(adapter.items()), strict=False)
        mx.eval(self.model.trainable_parameters())
        self._forget()

    def state(self) -> dict[str, mx.array]:
        """All that learning changes: `adapter.<parameter>` and `optim.<moment>`, flat."""
        adapter = {ADAPTER + name: value for name, value in self.adapter().items()}
        return adapter | {OPTIMIZER + name: value for name, value in tree_flatten(self.optimizer.state)}

    def load_state(self, state: Mapping[str, mx.array]) -> None:
        """Put back what `state` returned. Raises ValueError when names or shapes do not fit."""
        adapter = {name.removeprefix(ADAPTER): value for name, value in state.items() if name.startswith(ADAPTER)}
        moments = {name.removeprefix(OPTIMIZER): value for name, value in state.items() if name.startswith(OPTIMIZER)}
        self._check_fit(adapter, self.adapter())
        self._check_fit(moments, dict(tree_flatten(self.optimizer.state)))
        self.model.load_weights(list(adapter.items()), strict=False)
        self.optimizer.state = tree_unflatten(list(moments.items()))
        mx.eval(self.model.trainable_parameters(), self.optimizer.state)
        self._forget()

    def save_adapter(self, folder: Path) -> None:
        """Write adapters.safetensors and adapter_config.json as `mlx_lm.generate --adapter-path` reads them."""
        folder.mkdir(parents=True, exist_ok=True)
        adapter = dict(sorted(tree_flatten(self.model.trainable_parameters())))  # the order decides the file's bytes
        mx.save_safetensors(str(folder / "adapters.safetensors"), adapter, metadata={"format": "mlx"})
        description = {
            "fine_tune_type": "lora",
            "num_layers": self.lora.layers,
            "lora_parameters": self.lora_parameters,
            "model": self.config.id,
        }
        (folder / ADAPTER_CONFIG).write_text(json.dumps(description, indent=2) + "\n")

    def load_adapter(self, folder: Path) -> None:
        """Take the adapters that `save_adapter` wrote. Raises ValueError when they are of another shape."""
        self.put_adapter(mx.load(str(Path(folder) / "adapters.safetensors")))

    def _check_fit(self, given: Mapping[str, mx.array], own: Mapping[str, mx.array]) -> None:
        odd = sorted(given.keys() ^ own.keys())
        if odd:
            raise ValueError(f"{len(odd)} parameters do not match the policy's LoRA settings, first {odd[0]}")
        for name, value in given.items():
            if value.shape != own[name].shape:
                raise ValueError(f"{name} has shape {tuple(value.shape)}, the policy needs {tuple(own[name].shape)}")

    def _check_keys(self, keys: Sequence[str]) -> None:
        if not keys:
            return
        linear = [
            name
            for name, module in Backbone(self.model).layers[-1].named_modules()
            if isinstance(module, nn.Linear | nn.QuantizedLinear)
        ]
        for key in keys:
            if key not in linear:
                known = ", ".join(sorted(linear))
                raise ValueError(f"lora.keys: no linear layer {key!r} in a block; there are {known}")

    def _seed_adapters(self, seed: int) -> None:
        """Draw every lora_a as mlx_lm does, uniform in +-1/sqrt(inputs), from a key of its own: no global state."""
        drawn = []
        for name, value in tree_flatten(self.model.trainable_parameters()):
            if name.endswith("lora_a"):
                bound = 1.0 / math.sqrt(value.shape[-2])
                key = mx.random.key(((seed & 0xFFFFFFFF) << 32) | zlib.crc32(name.encode()))
                drawn.append((name, mx.random.uniform(-bound, bound, value.shape, key=key)))
        self.model.load_weights(drawn, strict=False)

    def _adapted(self) -> list[Any]:
        """The layers with an adapter, of whichever class of mlx_lm."""
        return [module for _, module in self.model.named_modules() if "lora_a" in module]


def _row(
    rollout: types.Rollout,
    advantage: float,
    old: np.ndarray | None = None,
    reference: np.ndarray | None = None,
) -> Example:
    sampled = np.asarray(rollout.completion.logprobs, np.float32)
    return Example(rollout.prompt_tokens, rollout.completion.tokens, sampled, advantage, old, reference)


def _owner(model: nn.Module, path: str) -> nn.Module:
    """The module that holds what a dotted path names."""
    for name in path.split(".")[:-1]:
        model = model[name]
    return model


def _merged(model: nn.Module) -> nn.Module:
    """A model of the same shape that shares every array but the adapted weights, which are W + scale * (A B)^T."""
    twin = type(model)(model.args)
    # Some models (Gemma) take their output matrix away when the weights turn out to be tied.
    for path, _ in list(twin.named_modules()):
        if path == "lm_head" or path.endswith(".lm_head"):
            owner = _owner(model, path)
            if "lm_head" not in owner:
                _owner(twin, path).pop("lm_head")
    cpu_kernels.fit(twin)
    shared = []
    adapted = {}
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            adapted[name] = module
    for name, value in tree_flatten(model.parameters()):
        owner = next((path for path in adapted if name.startswith(path + ".")), None)
        if owner is None:
            shared.append((name, value))
        elif name == f"{owner}.linear.bias":
            shared.append((f"{owner}.bias", value))
    for path, module in adapted.items():
        weight = module.linear.weight
        if module.scale:
            weight = weight + (module.scale * (module.lora_a @ module.lora_b)).T.astype(weight.dtype)
        shared.append((f"{path}.weight", weight))
    twin.load_weights(shared, strict=True)
    twin.eval()
    mx.eval(twin.parameters())
    return twin
