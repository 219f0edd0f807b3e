"""The tiny models of the model side, whose measured memory the planner is compared with."""

from tests.model.conftest import load, models

__all__ = ["load", "models"]
