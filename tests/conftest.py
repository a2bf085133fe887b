"""Fixtures that all tests share."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # Read once, when the client of the hub is imported.

from e2e_content import bench, run_cli
from e2e_runs import own

__all__ = ["bench", "own", "run_cli"]
