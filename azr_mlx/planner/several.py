"""What several Macs make of a step: the roofline of each, the real list of items, a network of a given speed."""

from __future__ import annotations

import re
from dataclasses import replace

from azr_mlx import config
from azr_mlx.cluster.sharing import cut_into_items
from azr_mlx.cluster.simulation import SimulatedMachine, SimulatedStep, simulate
from azr_mlx.errors import UsageError
from azr_mlx.planner import chips
from azr_mlx.planner.machine import Machine, mac, size
from azr_mlx.planner.memory import plan_memory
from azr_mlx.planner.roofline import step_costs
from azr_mlx.planner.shapes import Shape, adapter_parameters
from azr_mlx.planner.workload import step_workloads
from azr_mlx.types import GB

# Bytes a second that a connection carries: 94 % of 1 Gb/s, half of what Wi-Fi 6 says of itself in one room (an
# assumption), 10 Gb/s of a Thunderbolt bridge.
NETWORKS = (("1 GbE", 117e6), ("Wi-Fi 6", 60e6), ("Thunderbolt", 1.2e9))


def workers_of(text: str) -> list[Machine]:
    """The machines of "M3 Max, M1 16GB": a chip each, with its memory, else the least that it is sold with."""
    machines = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(.*?)(?:\s+([0-9.]+\s*(?:T|G|M)i?B?))?\s*", part, re.IGNORECASE)
        if found is None or not found[1]:
            raise UsageError(f"plan: --workers {text}: name a chip each, and its memory, as in 'M3 Max, M1 16GB'")
        memory = size(found[2]) if found[2] else min(chips.find(found[1]).memory) * GB
        machines.append(mac(memory, found[1]))
    return machines


def alone(settings: config.Config, shape: Shape, machine: Machine) -> SimulatedMachine:
    """Seconds that one machine takes for a step's completions and its gradient."""
    costs = step_costs(settings, shape, machine)
    learning = sum(one.seconds for one in costs if one.name == "update")
    return SimulatedMachine(machine.name, sum(one.seconds for one in costs) - learning, learning)


def together(settings: config.Config, shape: Shape, machines: list[Machine], bandwidth: float) -> SimulatedStep:
    """A step on all of them; the first is the coordinator."""
    rows = sum(one.rows for one in step_workloads(settings))
    number = -(-rows // settings.sampling.item_rows)
    named = [replace(alone(settings, shape, one), name=f"{i}") for i, one in enumerate(machines)]
    adapter = 4.0 * adapter_parameters(settings.lora, shape)
    return simulate(named, [1.0] * number, [1.0] * settings.optim.gradient_items, adapter, bandwidth)


def lines(settings: config.Config, shape: Shape, machine: Machine, workers: list[Machine]) -> tuple[list[str], bool]:
    """The lines of `azr plan --workers`, and whether every machine can hold its part."""
    whole, settings = settings, cut_into_items(settings)
    rows = settings.sampling.item_rows
    settings = config.with_values(settings, {"sampling.max_rows": min(rows, settings.sampling.max_rows)})
    everybody = [machine, *workers]
    adapter = 4.0 * adapter_parameters(settings.lora, shape)
    one = sum(cost.seconds for cost in step_costs(whole, shape, machine))
    name, bandwidth = NETWORKS[0]
    step = together(settings, shape, everybody, bandwidth)
    said = [
        "",
        f"workers   items of {rows} rows and {settings.optim.gradient_items} sums of gradients, shared over {name}",
        f"{'':<44}{'alone, s':>9}{'share':>8}{'busy':>7}",
    ]
    fits = True
    for i, each in enumerate(everybody):
        enough = plan_memory(settings, shape, each).total <= each.room
        fits = fits and enough
        single = alone(settings, shape, each)
        share = step.work[i] / sum(step.work)
        said.append(
            f"  {('coordinator: ' if i == 0 else '') + each.name:<42}{single.writing + single.learning:9.3g}"
            f"{share:8.0%}{step.busy[i] / step.seconds:7.0%}" + ("" if enough else "  DOES NOT FIT into its memory")
        )
    said.append(
        f"  a step: {step.seconds:.3g} s, {one / step.seconds:.2f} times as fast as the coordinator alone ({one:.3g} s)"
    )
    exchange = adapter * len(workers) + step.received
    said.append(
        f"  network: {adapter / 1e6:.0f} MB of adapters to each worker, {step.received / 1e6:.0f} MB of gradients "
        "back; " + ", ".join(f"{exchange / speed:.2g} s by {way}" for way, speed in NETWORKS)
    )
    slow = together(settings, shape, everybody, NETWORKS[1][1]).seconds
    said.append(f"  by {NETWORKS[1][0]} a step takes {slow:.3g} s; gradients travel while the next one is computed")
    return said, fits
