"""Benchmarks of the engine. `python -m benchmarks` runs them; see README.md in this folder."""
