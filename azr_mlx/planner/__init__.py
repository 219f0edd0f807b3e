"""Will a configuration fit this machine, and how long does a step take?"""

from azr_mlx.planner.ladder import LADDER, Rung, RungChoice, RungEstimate, choose, choose_here, estimate, table
from azr_mlx.planner.machine import Machine, calibrated, here, mac, size
from azr_mlx.planner.memory import (
    MemoryPlan,
    held_weights,
    kept,
    plan_memory,
    rows_together,
    token_bytes,
    weight_bytes,
)
from azr_mlx.planner.plan import fitting_changes, plan_command
from azr_mlx.planner.roofline import Cost, step_costs
from azr_mlx.planner.shapes import PUBLISHED, Shape, adapter_parameters, shape_of
from azr_mlx.planner.workload import Workload, other_workloads, step_workloads, typical_workloads

__all__ = [
    "LADDER",
    "PUBLISHED",
    "Cost",
    "Machine",
    "MemoryPlan",
    "Rung",
    "RungChoice",
    "RungEstimate",
    "Shape",
    "Workload",
    "adapter_parameters",
    "calibrated",
    "choose",
    "choose_here",
    "estimate",
    "fitting_changes",
    "held_weights",
    "here",
    "kept",
    "mac",
    "other_workloads",
    "plan_command",
    "plan_memory",
    "rows_together",
    "shape_of",
    "size",
    "step_costs",
    "step_workloads",
    "table",
    "token_bytes",
    "typical_workloads",
    "weight_bytes",
]
