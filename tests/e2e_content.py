"""Content for end-to-end tests: a tiny model that learnt three emotions, its benchmark and its suite."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from affectbench.__main__ import main
from affectbench.analysis import Analysis
from affectbench.errors import AffectbenchError
from affectbench.placement import Options
from affectbench.plan import Job, job_of_names, jobs_of_suite
from affectbench.record import Cell, Record
from affectbench.registry import Registry
from affectbench.run import Run

CUES = {"anger": ("stole", "broke"), "joy": ("won", "found"), "sadness": ("lost", "missed")}
PEOPLE = ("mara", "otto", "rosa", "emil", "lena", "hugo", "ines", "karl", "nora", "olaf", "pia", "quin")
THINGS = ("dog", "ring", "key", "song", "boat", "coin")
SPARE = "the was in Text Question Emotion feel : . A B C D very"
BENCHMARK, PROTOCOL, MODEL, SUITE = "toy-stories", "toy-gain", "toy", "toy-suite"
SELECTORS = ("magnitude", "random")

SELECTOR = '''"""A selector of a test."""

import numpy as np

from affectbench.intervention import UNTOUCHED
from affectbench.selector import Selection, Selector


class Trial(Selector):
    name = "{name}"
    needs = frozenset({{"mean"}})
{sites}
    def select(self, study, budget):
        units = tuple(np.arange(e * budget, (e + 1) * budget) for e in range(len(study.labels)))
{body}
        return Selection(study.site, study.shape, study.labels, units)
'''


def story(person: str, cue: str, thing: str) -> str:
    return f"{person} {cue} the {thing} ."


def items() -> list[dict[str, str]]:
    """Each person is a cluster and lives through every emotion twice: 12 x 3 x 2 items."""
    rows = []
    for place, person in enumerate(PEOPLE):
        for label, cues in CUES.items():
            for turn, cue in enumerate(cues):
                thing = THINGS[(place + turn) % len(THINGS)]
                rows.append(
                    {
                        "id": f"{person}-{cue}",
                        "text": story(person, cue, thing),
                        "emotion": label,
                        "speaker": person,
                    }
                )
    return rows


def write_content(root: Path) -> Path:
    """Train and save the model, write its card, benchmark, data, protocol and suite below `root`."""
    save_model(root / "models" / "checkpoints" / MODEL)
    write_yaml(root / "models" / f"{MODEL}.yaml", card())
    write_benchmark(root)
    write_protocol(root)
    suite_file(root, SUITE, PROTOCOL)
    write_lines(root / "data" / BENCHMARK / "items.jsonl", items())
    (root / "selectors").mkdir(exist_ok=True)
    return root


def suite_file(root: Path, name: str, *protocols: str, **changes: Any) -> Path:
    """A suite in a content folder: the toy model on its task. A change to None takes the key out."""
    content = {
        "kind": "suite",
        "name": name,
        "version": 1,
        "title": "Toy suite",
        "models": [MODEL],
        "tasks": {"text": BENCHMARK},
        "selectors": [SELECTORS[0]],
        "controls": [SELECTORS[1]],
        "interventions": list(protocols),
    } | changes
    told = {key: value for key, value in content.items() if value is not None}
    return write_yaml(root / "tasks" / "suites" / f"{name}.yaml", told)


def card(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "model",
        "name": MODEL,
        "version": 1,
        "title": "Toy model",
        "family": "causal_lm",
        "checkpoint": f"checkpoints/{MODEL}",
        "modality": "text",
        "licence": "own",
        "default_task": BENCHMARK,
    } | changes


def benchmark(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "benchmark",
        "name": BENCHMARK,
        "version": 1,
        "title": "Toy stories",
        "modality": "text",
        "licence": "own",
        "data": BENCHMARK,
        "source": {
            "reader": "table",
            "format": "jsonl",
            "files": {"all": "items.jsonl"},
            "columns": {"text": "text", "label": "emotion", "id": "id", "cluster": "speaker"},
        },
        "labels": list(CUES),
        "cluster": "speaker",
        "split": {
            "by": "cluster",
            "clusters": {
                "identification": list(PEOPLE[:4]),
                "validation": list(PEOPLE[4:6]),
                "test": list(PEOPLE[6:]),
            },
        },
        "prompt": "Text : {text} Emotion :",
        "readout": {"kind": "labels"},
        "preservation": {
            "neutral": {"reader": "file", "path": "neutral.jsonl"},
            "capability": {
                "kind": "multiple_choice",
                "source": {"reader": "file", "path": "choices.jsonl"},
            },
            "prompts": ["mara", "the boat was"],
            "max_new_tokens": 4,
        },
    } | changes


def protocol(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "intervention",
        "name": PROTOCOL,
        "version": 1,
        "title": "Toy gain",
        "site": "gate",
        "positions": "all",
        "statistics": {"positions": "answer", "items": "all", "minimum_items": 1},
        "fractions": [0.05],
        "arms": {
            "suppress": {"operation": "scale", "doses": [0]},
            "amplify": {"operation": "scale", "doses": [2, 4]},
        },
        "controls": {"random_draws": 6},
    } | changes


def write_benchmark(root: Path, **changes: Any) -> Path:
    """A benchmark in a content folder, with the files that it names beside it."""
    folder = root / "tasks" / "benchmarks"
    neutral = [{"text": f"the {thing} was in the boat ."} for thing in THINGS[:4]]
    write_lines(folder / "neutral.jsonl", neutral)
    choices = [
        {"id": f"q{k}", "context": f"{person} {cue} the", "choices": [f" {thing}", " feel"], "answer": 0}
        for k, (person, cue, thing) in enumerate(zip(PEOPLE, ("won", "lost") * 3, THINGS, strict=False))
    ]
    write_lines(folder / "choices.jsonl", choices)
    content = benchmark(**changes)
    return write_yaml(folder / f"{content['name']}.yaml", content)


def write_protocol(root: Path, **changes: Any) -> Path:
    """A protocol in a content folder."""
    content = protocol(**changes)
    return write_yaml(root / "tasks" / "interventions" / f"{content['name']}.yaml", content)


def write_yaml(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_selector(root: Path, name: str, body: str = "", sites: str = "") -> Path:
    """A selector that names the first units, after running the lines of `body`; `sites` is what its source
    says of them, where it says something."""
    lines = "\n".join(f"        {line}" for line in body.splitlines())
    path = root / "selectors" / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SELECTOR.format(name=name, body=lines, sites=f"    sites = {sites}\n" if sites else ""))
    return path


def save_model(folder: Path, steps: int = 60) -> None:
    """Train a two-layer Qwen2 to name the emotion of a story and to write stories; save it."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from transformers.utils import logging

    torch.manual_seed(0)
    words = tokenizer()
    config = Qwen2Config(
        vocab_size=len(words), hidden_size=32, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=96, tie_word_embeddings=True,
        eos_token_id=0, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    network = Qwen2ForCausalLM(config)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-2, weight_decay=0.0)
    dice = random.Random(0)
    for _ in range(steps):
        lines = []
        for _ in range(24):
            label = dice.choice(list(CUES))
            told = story(dice.choice(PEOPLE), dice.choice(CUES[label]), dice.choice(THINGS))
            lines.append(f"Text : {told} Emotion : {label}<|endoftext|>")
        batch = words(lines, padding=True, return_tensors="pt")
        wanted = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        optimiser.zero_grad()
        text = network(**batch, labels=wanted).loss
        answer = wanted.masked_fill(wanted.roll(-1, dims=1) != 0, -100)  # The word before the end.
        (text + 2 * network(**batch, labels=answer).loss).backward()
        optimiser.step()
    logging.disable_progress_bar()
    network.save_pretrained(folder)
    words.save_pretrained(folder)


def tokenizer() -> Any:
    """A byte-level BPE in which every word of the stories, with its leading space, is one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = (*PEOPLE, *THINGS, *CUES, *(cue for cues in CUES.values() for cue in cues), *SPARE.split())
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=["<|endoftext|>"],  # Qwen2's tokenizer class would add it beyond the vocabulary.
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([f"{word} {word}" for word in words], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<|endoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>"
    )


@dataclass
class Log:
    """A reporter that remembers what it was told; `on_done` is called after each finished cell."""

    ran: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    passes: int = 0
    announced: int = 0
    cells: int = 0
    analyses: list[tuple[str, bool]] = field(default_factory=list)
    on_done: Callable[[Record], None] = lambda _record: None

    def start(self, cells: int) -> None:
        self.cells = cells

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def cell(self, cell: Cell, passes: int) -> None:
        self.announced += passes

    def advance(self, passes: int) -> None:
        self.passes += passes

    def note(self, text: str) -> None:
        self.notes.append(text)

    def done(self, record: Record, *, skipped: bool) -> None:
        (self.skipped if skipped else self.ran).append(record.cell.selector)
        self.on_done(record)

    def analysed(self, analysis: Analysis, *, skipped: bool) -> None:
        self.analyses.append((analysis.kind, skipped))


@dataclass
class Bench:
    """The content folder and how to run things in it."""

    root: Path

    def registry(self, *more: Path) -> Registry:
        return Registry([self.root, *more], installed=False)

    def suite(self, *more: Path, seed: int | None = None) -> list[Job]:
        return jobs_of_suite(self.registry(*more), SUITE, seed)

    def job(
        self, *selectors: str, more: Sequence[Path] = (), task: str = BENCHMARK, protocol: str = PROTOCOL
    ) -> Job:
        chosen = selectors or SELECTORS
        return job_of_names(self.registry(*more), MODEL, task, chosen, [protocol], 0)

    def run(
        self, jobs: list[Job] | Job, output: Path, *, more: Sequence[Path] = (), **options: Any
    ) -> tuple[list[Record], Log]:
        """Run jobs into `output`; returns the records and what the reporter heard."""
        log = options.pop("log", None) or Log()
        settings = Options(output, data=options.pop("data", self.root / "data"), **options)
        found = Run(self.registry(*more), settings, log).run([jobs] if isinstance(jobs, Job) else jobs)
        return found, log


def contents(output: Path) -> dict[str, str]:
    """Content hash of every record file of a results folder, by file name."""
    return {
        path.stem: json.loads(path.read_text())["hashes"]["record"]
        for path in sorted((output / "records").glob("*.json"))
    }


def in_child(action: Callable[[], object]) -> int:
    """Start `action` in a forked process; returns its id. It exits with 0, or 1 after an exception."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        import torch

        torch.set_num_threads(1)  # The pool of the parent's threads is gone.
        action()
        code = 0
    except AffectbenchError:
        code = 3
    finally:
        os._exit(code)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


Outcome = tuple[int, str, str]
"""Exit code, standard output, standard error."""


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """The command line in this process, through its entry point."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["harness.py", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return int(str(code or 0)), captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Nothing is taken from a run with another number of threads, and sums round otherwise with each."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The content folder, made once; tests add to it by folders of their own."""
    return Bench(write_content(tmp_path_factory.mktemp("content")))


@pytest.fixture(scope="session")
def done(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a finished suite; tests that change them work on a copy."""
    output = tmp_path_factory.mktemp("done")
    bench.run(bench.suite(), output)
    return output
