"""Benchmark harness for causal claims about emotion units inside language models."""

__version__ = "0.1.0"
