"""The executor: runs programs that nobody trusts, and believes nothing of them but their values.

    with Executor() as executor:
        outcome = executor.submit(Job("def f(a):\\n    return a + 1", ("1",))).result()
        assert outcome.status is Status.OK and outcome.values == (2,)

Never imports mlx. docs/security.md says what is confined where, and what is not.
"""

from azr_mlx.executor.jobs import Job, Limits, Outcome, Status, StdinJob, TestJob
from azr_mlx.executor.layers import LayerReport, SandboxUnavailable
from azr_mlx.executor.pool import Executor, ExecutorFailed, find_layers

__all__ = [
    "Executor",
    "ExecutorFailed",
    "Job",
    "LayerReport",
    "Limits",
    "Outcome",
    "SandboxUnavailable",
    "Status",
    "StdinJob",
    "TestJob",
    "find_layers",
]
