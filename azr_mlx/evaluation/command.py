"""`azr eval`: which models and benchmarks were asked for. The one module of this package that loads a policy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from azr_mlx import config, paths
from azr_mlx.errors import AzrError, UsageError
from azr_mlx.evaluation.asking import Asker
from azr_mlx.evaluation.endpoint import Endpoint, endpoint_variant
from azr_mlx.evaluation.explain import explain, sample_of
from azr_mlx.evaluation.fetching import DataMissing
from azr_mlx.evaluation.plan import Plan, make_plan, variant
from azr_mlx.evaluation.record import RESULTS, Evaluation, Identity, compare_evaluations, keep_record
from azr_mlx.evaluation.request import EvalOptions
from azr_mlx.evaluation.run import evaluate, given_rows, score_completions
from azr_mlx.evaluation.sampling import sample
from azr_mlx.evaluation.suites import show_suite
from azr_mlx.evaluation.table import show_results
from azr_mlx.executor import Executor, SandboxUnavailable
from azr_mlx.files import sha256
from azr_mlx.model.adapter_config import ADAPTER_CONFIG, read_adapter_config
from azr_mlx.report.evaluation_page import write_evaluation
from azr_mlx.run.folder import RunFolder


def eval_command(options: EvalOptions, versions: Mapping[str, str]) -> int:
    """Do what `azr eval` was asked for. Starts the executor first, and MLX only when a model has to write."""
    console = Console(stderr=options.as_json, highlight=False)
    plans, left_out = _plans(options)
    folder = options.logs or paths.logs()
    paths.make_folder(folder, "--logs")  # before anything is computed that would be lost
    adapter = _adapter(options.adapter) if options.adapter is not None else None
    kept: list[dict[str, Any]] = []
    everything: list[Evaluation] = []
    try:
        executor = Executor(options.level)
    except SandboxUnavailable as error:
        raise AzrError(str(error)) from None
    with executor:
        policy, who = (
            (None, Identity(""))
            if options.completions
            else _served(options, console)
            if options.endpoint
            else load_policy(options, adapter)
        )
        plans = [_worded(plan, options, policy, who) for plan in plans]
        if options.explain:
            for one in plans:
                _explain(one, options, policy, who, executor, console)
            return 0
        for one in plans:
            evaluations = _evaluations(one, options, policy, who, executor, folder, versions, console)
            found = compare_evaluations(evaluations[0], evaluations[1]) if len(evaluations) == 2 else None
            if found is not None:
                evaluations[1].record["compared"] = found
            for evaluation in evaluations:
                keep_record(folder, evaluation.record, console)
                kept.append(evaluation.record)
                everything.append(evaluation)
            page = write_evaluation(Path(f"{evaluations[-1].record['samples_file']}.html"), evaluations, found)
            if not options.as_json:
                show_results(console, evaluations, found)
                console.print(f"page: {page}", markup=False, soft_wrap=True)
                console.print(f"kept in {folder / RESULTS}", markup=False, soft_wrap=True)
    if options.suite and not options.as_json:
        show_suite(console, options.suite, everything, left_out)
    if options.as_json:
        Console(soft_wrap=True, highlight=False).print_json(data=kept)
    return 0


def _plans(options: EvalOptions) -> tuple[list[Plan], dict[str, str]]:
    """A plan for each choice; of a suite those whose rows are here, and why others are left out. Raises AzrError."""
    plans: list[Plan] = []
    left_out: dict[str, str] = {}
    for choice in options.choices:
        try:
            plans.append(make_plan(choice, given=options.completions is not None))
        except DataMissing as error:
            if not options.suite:
                raise
            left_out[choice.bench] = str(error).rpartition(" is not on this machine: ")[2]
    if not plans:
        raise DataMissing(f"nothing of {options.suite} is on this machine: {'; '.join(left_out.values())}")
    return plans, left_out


def _evaluations(
    plan: Plan,
    options: EvalOptions,
    policy: Any,
    who: Identity,
    executor: Executor,
    folder: Path,
    versions: Mapping[str, str],
    console: Console,
) -> list[Evaluation]:
    """One result, or the two that are to be compared, the earlier or simpler one first."""
    if options.completions is not None:
        paths = [options.other, options.completions] if options.other else [options.completions]
        return [
            score_completions(
                plan, path, executor, model=options.model, partial=options.partial, extract=_extractor(plan, options),
                versions=versions, console=console,
            )
            for path in paths
        ]  # fmt: skip
    if isinstance(policy, Endpoint):
        policy.chat = plan.benchmark.prompts[plan.choice.prompt].chat
    sides = [(replace(who, adapter="", adapter_hash=""), policy.reference)] if options.compare else []
    sides.append((who, nullcontext))
    evaluations = []
    for side, context in sides:
        with context():
            evaluations.append(
                evaluate(
                    plan, policy, executor, side, path=options.output, folder=folder, versions=versions,
                    console=console, fresh=options.fresh,
                )
            )  # fmt: skip
    return evaluations


def _served(options: EvalOptions, console: Console) -> tuple[Endpoint, Identity]:
    """The model of an endpoint: the one that is named, else the only one there. Raises AzrError."""
    endpoint = Endpoint(
        options.endpoint, options.model, requests=options.rows or 8,
        say=lambda line: console.print(line, markup=False, soft_wrap=True),
    )  # fmt: skip
    if not endpoint.model:
        served = endpoint.served()
        if len(served) != 1:
            raise UsageError(f"eval: say which model of {endpoint.address} with --model: {', '.join(served) or 'none'}")
        endpoint.model = served[0]
    return endpoint, Identity(endpoint.model, weights=f"served at {endpoint.address}")


def _worded(plan: Plan, options: EvalOptions, policy: Any, who: Identity) -> Plan:
    """A plan with its prompt variant settled. Raises UsageError."""
    choice = plan.choice
    if isinstance(policy, Endpoint):
        name = endpoint_variant(plan.benchmark, choice.prompt, policy.model)
    elif options.completions is not None:
        name = choice.prompt or endpoint_variant(plan.benchmark, "", "a-chat-model")
    else:
        name = variant(plan.benchmark, choice, who.model)
    return replace(plan, choice=replace(choice, prompt=name))


def _extractor(plan: Plan, options: EvalOptions) -> Asker | None:
    """What finds the answers in raw replies, where they are asked for."""
    return Asker(plan.benchmark, plan.choice.prompt, plan.everything, lambda text, _: text) if options.extract else None


def _explain(
    plan: Plan, options: EvalOptions, policy: Any, who: Identity, executor: Executor, console: Console
) -> None:
    """Show the first sample of a plan in all its steps. Nothing is kept."""
    if options.completions is not None:
        found = sample_of(plan, given_rows(plan, options.completions, _extractor(plan, options)))
        if found is None:
            raise UsageError(f"{options.completions} has no completion of the chosen problems")
        asker = Asker(plan.benchmark, plan.choice.prompt, plan.everything, lambda text, _: text)
    else:
        if isinstance(policy, Endpoint):
            policy.chat = plan.benchmark.prompts[plan.choice.prompt].chat
        asker = Asker(plan.benchmark, plan.choice.prompt, plan.everything, policy.render_chat, thinking=who.thinking)
        found = next(sample(plan, asker, policy, [(0, 0)]))
    explain(console, plan, asker, *found, executor)


def _adapter(given: Path) -> Path:
    """The adapter folder that a path means: itself, or the newest checkpoint of a run. Raises UsageError."""
    folder = (
        given if (given / "adapters.safetensors").is_file() else RunFolder(given).latest() if given.is_dir() else None
    )
    if folder is None or not (folder / ADAPTER_CONFIG).is_file():
        hint = (
            "a PEFT adapter; give the folder of the MLX one"
            if (given / "adapter_model.safetensors").is_file()
            else ("no adapter: a folder with adapters.safetensors and adapter_config.json, or a run with checkpoints")
        )
        raise UsageError(f"--adapter {given} is {hint}")
    return folder


def load_policy(options: EvalOptions, adapter: Path | None) -> tuple[Any, Identity]:
    """The policy that `options` name, and what identifies it. Imports MLX. Raises AzrError."""
    lora, name = config.LoraConfig(rank=1), options.model
    if adapter is not None:
        try:
            described = read_adapter_config(adapter)
        except (OSError, ValueError):
            raise UsageError(f"{adapter / ADAPTER_CONFIG} does not describe a LoRA adapter of mlx_lm") from None
        lora, name = described.lora, name or described.model
        if not name:
            raise UsageError(
                f"{adapter / ADAPTER_CONFIG} does not say which model the adapter is of: name it with --model"
            )
    name = name or config.ModelConfig().id
    from azr_mlx.model.policy import Policy

    # Style `chat` leaves the tokenizer as the model has it; `r1` would take its think tags apart.
    model = config.ModelConfig(
        id=name, revision=options.revision, style="chat", thinking=options.thinking, bits=options.bits
    )
    try:
        policy = Policy.load(
            model,
            lora,
            config.OptimConfig(),
            config.SamplingConfig(max_rows=options.rows or 64),
            config.LossConfig(),
            adapter=adapter,
        )
    except ValueError as error:
        raise AzrError(f"{adapter or name} does not fit {name}: {error}") from None
    digest = sha256(adapter / "adapters.safetensors") if adapter else ""
    bits = (policy.settings.get("quantization") or {}).get("bits")
    precision = f"{bits} bit" if bits else "full precision"
    return policy, Identity(name, _weights(policy.folder), precision, options.thinking, str(adapter or ""), digest)


def _weights(folder: Path) -> str:
    """What tells the weights of a model folder apart: the hub's commit, else a hash of the files."""
    if folder.parent.name == "snapshots":
        return folder.name
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.jinja"), *folder.glob("model*.safetensors")]):
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:  # of weights the first and last megabyte: gigabytes would take a minute
            digest.update(file.read(1 << 20))
            file.seek(max(0, size - (1 << 20)))
            digest.update(file.read(1 << 20))
    return digest.hexdigest()[:16]
