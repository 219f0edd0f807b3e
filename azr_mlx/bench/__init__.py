"""`azr bench`: what this machine does in three minutes, as one file that calibrates the planner.

The file holds no personal data: the chip, its memory, versions and numbers.
"""

from azr_mlx.bench.command import bench_command
from azr_mlx.bench.command import lines as bench_lines

__all__ = ["bench_command", "bench_lines"]
