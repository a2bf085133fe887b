"""Fixtures that all tests share."""

from e2e_content import bench, run_cli

__all__ = ["bench", "run_cli"]
