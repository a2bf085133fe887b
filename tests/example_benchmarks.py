"""Small benchmarks for tests, and the shipped ones."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from affectbench.task import Benchmark, RecognitionBenchmark, load_as

ROOT = Path(__file__).resolve().parent.parent
EMOTIONS = ("anger", "happiness", "sadness")


def shipped(name: str) -> Benchmark:
    return load_as(ROOT / f"tasks/benchmarks/{name}.yaml", Benchmark)


def benchmark(**changes: Any) -> RecognitionBenchmark:
    """A small table benchmark; keyword arguments replace its keys."""
    content: dict[str, Any] = {
        "kind": "benchmark",
        "name": "trial",
        "version": 1,
        "modality": "text",
        "licence": "own",
        "data": "trial",
        "source": {
            "reader": "table",
            "format": "csv",
            "files": {"all": "items.csv"},
            "columns": {"text": "text", "label": "emotion", "id": "id", "cluster": "writer"},
        },
        "labels": EMOTIONS,
        "label_map": {"joy": "happiness", "boredom": None},
        "cluster": "writer",
        "split": {"by": "cluster", "fractions": {"identification": 0.5, "validation": 0.25, "test": 0.25}},
        "prompt": "Text: {text} Emotion:",
        "readout": {"kind": "labels"},
        "preservation": {
            "neutral": {"reader": "generator", "module": "narratives", "n": 3, "seed": 1},
            "capability": {"kind": "benchmark", "task": "other"},
            "prompts": ["Once"],
        },
    }
    return RecognitionBenchmark.model_validate(content | changes)


def tone(rate: int, seconds: float = 0.5, channels: int = 1) -> npt.NDArray[np.float64]:
    """A 1 kHz sine of amplitude 0.5, shape (samples, channels)."""
    time = np.arange(int(rate * seconds)) / rate
    wave = 0.5 * np.sin(2 * np.pi * 1000 * time)
    return np.repeat(wave[:, None], channels, axis=1)
