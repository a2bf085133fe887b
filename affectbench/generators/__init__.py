"""Deterministic generators of the reference benchmarks' data."""
