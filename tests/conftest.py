"""Fixtures that all tests share."""

from e2e_content import bench, run_cli
from e2e_runs import own

__all__ = ["bench", "own", "run_cli"]
