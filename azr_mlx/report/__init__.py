"""The report of a run: one HTML file that needs nothing else."""

from azr_mlx.report.page import write

__all__ = ["write"]
