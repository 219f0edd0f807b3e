"""A finished run as the report's tests make it."""

from tests.report.conftest import finished

__all__ = ["finished"]
