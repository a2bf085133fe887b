"""``python -m benchmarks.gpu``: the engine on a large model and a GPU, as a Markdown table.

The model has the shape of the thinker of Qwen2.5-Omni-7B, and random weights: it is built from its config, so
nothing is downloaded. Times are wall-clock times between two synchronisations of the device.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affectbench.batch import Prepared
from affectbench.engine import Engine
from affectbench.evidence import ATTRIBUTION, STATISTICS, EvidencePass, requests_of
from affectbench.intervention import ANSWER, AUDIO, CONTENT, VALID, Intervention, scale
from affectbench.model import Model
from affectbench.readout import Items, Readout
from affectbench.registry import Registry
from affectbench.task import ModelCard
from benchmarks.measuring import Report, Result, Settings, agree, compared, in_turn
from benchmarks.ways import Hooks

EMOTIONS = 7
SHARE = 0.005
"""Share of a layer's units that an intervention touches."""


@dataclass(frozen=True)
class Size:
    """A model and what it is asked: `frames` of log-mel an item (4 an audio token), words of prompt."""

    config: dict[str, Any]
    items: int
    frames: int
    words: int
    interventions: int


SIZES = {
    # The config's defaults are the 7B checkpoint's but for the vision tower, which is as wide as the decoder.
    "7b": Size(
        {"vision_config": {"hidden_size": 1280, "intermediate_size": 3420}},
        items=64, frames=800, words=48, interventions=28,
    ),
    "tiny": Size(
        {
            "text_config": {
                "vocab_size": 512, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4,
                "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
                "rope_parameters": {
                    "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]
                },
            },
            "audio_config": {
                "d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 128,
                "output_dim": 64, "num_mel_bins": 80,
            },
            "vision_config": {
                "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 64,
            },
        },
        items=16, frames=80, words=12, interventions=8,
    ),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the model, measure, print the table."""
    options = parser().parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("there is no usable GPU: try --size tiny --device cpu", file=sys.stderr)
        return 2
    bench = Bench(SIZES[options.size], torch.device(options.device), Settings(repeats=options.repeats))
    report = bench.run()
    name = torch.cuda.get_device_name() if bench.on_gpu else "CPU"
    print(
        f"\n{options.size} thinker, {bench.model.parameters:,} parameters, {bench.model.dtype}, on {name}; "
    )
    print(f"torch {torch.__version__}, {time.strftime('%Y-%m-%d', time.gmtime())}\n")
    print("| what | ours | other | ratio (min to max) | unit |\n|---|---:|---:|---:|---|")
    for result in report.results:
        low, high = result.spread
        print(
            f"| {result.name} | {result.ours:.4g} | {result.other:.4g} | "
            f"**{result.ratio:.3g}** ({low:.3g} to {high:.3g}) | {result.unit} |"
        )
    for line in (*bench.notes, *report.skipped):
        print(f"\n{line}")
    if options.output:
        rows = [result.as_json() for result in report.results]
        options.output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    found.add_argument("--size", choices=SIZES, default="7b", help="shape of the model (default 7b)")
    found.add_argument("--device", default="cuda", help="cuda (default) or cpu")
    found.add_argument("--repeats", type=int, default=5, help="how often each side runs (default 5)")
    found.add_argument("--output", type=Path, help="JSON to write the results to")
    return found


class Bench:
    """One model on one device, with its items."""

    def __init__(self, size: Size, device: torch.device, settings: Settings) -> None:
        self.size, self.device, self.settings = size, device, settings
        self.on_gpu = device.type == "cuda"
        self.notes: list[str] = []
        settings.say("building the model")
        self.model = thinker(size, device)
        settings.say("preparing the items: the audio tower runs once for each")
        self.items = items_for(self.model, size)
        labels = tuple(f"emotion-{place}" for place in range(EMOTIONS))
        self.readout = Readout(labels, tuple((10 + place,) for place in range(EMOTIONS)))

    def run(self) -> Report:
        """All measurements, the cheapest first."""
        width, layers = self.model.shape.width, self.model.shape.layers
        everywhere = np.arange(layers)
        late = everywhere[-max(1, layers // 4) :]
        found = [
            self._beside_bare("no-op", [scale("gate", self.model.shape, np.arange(width), 1.0)]),
            self._beside_bare("an edit in every layer", self._edits(1, everywhere)),
        ]
        skipped = []
        plain = frozenset(STATISTICS) - {ATTRIBUTION}
        for what, needs in (("without a gradient", plain), ("with attribution", frozenset(STATISTICS))):
            try:
                found.append(self._evidence(what, needs))
            except torch.OutOfMemoryError:
                skipped.append(f"evidence {what}: out of memory with a batch of 32 items")
        for what, chosen in (("all layers", everywhere), ("the last quarter of the layers", late)):
            found.append(self._grid(what, self._edits(self.size.interventions, chosen)))
        return Report(found, tuple(skipped))

    def _edits(self, count: int, layers: np.ndarray) -> list[Intervention]:
        """Gains on random units of `layers`."""
        rng = np.random.default_rng(0)
        shape = self.model.shape
        each = max(1, round(SHARE * shape.width))
        found = []
        for _ in range(count):
            units = [layer * shape.width + rng.choice(shape.width, each, replace=False) for layer in layers]
            found.append(scale("gate", shape, np.sort(np.concatenate(units)).astype(np.int64), 2.0))
        return found

    def _beside_bare(self, what: str, edits: list[Intervention]) -> Result:
        ours = self._predicted(edits)
        return self._timed(f"bare pass over {what}", ours, self._bare)

    def _evidence(self, what: str, needs: frozenset[str]) -> Result:
        requests = requests_of(needs, "gate", "content")

        def ours() -> EvidencePass:
            return EvidencePass(Engine(self.model), self.items, self.readout, requests).run()

        return self._timed(f"bare pass over evidence, {what}", ours, self._bare)

    def _grid(self, where: str, edits: list[Intervention]) -> Result:
        """Packed answers beside one intervention and one pass at a time."""
        packed, single = self._predicted(edits), self._one_at_a_time(edits)
        difference = float(np.abs(packed() - single()).max())
        allowed = 1e-3 if self.model.dtype == torch.float32 else 0.25
        agree(difference <= allowed, f"packed and single scores differ by {difference:.3g} nats")
        name = f"{len(edits)} interventions on {len(self.items)} items, units in {where}"
        result = self._timed(f"{name}: one at a time over packed", packed, single)
        tokens = len(edits) * sum(len(item) for item in self.items.items)
        self.notes.append(
            f"{name}: {tokens / result.ours:,.0f} tokens/s, one at a time {tokens / result.other:,.0f}. "
            f"Largest difference of a score: {difference:.2g} nats."
        )
        return result

    def _predicted(self, edits: list[Intervention]) -> Callable[[], np.ndarray]:
        """Answers of an engine that knows nothing yet."""
        return lambda: Engine(self.model).predict(self.items, self.readout, edits).scores

    def _one_at_a_time(self, edits: list[Intervention]) -> Callable[[], np.ndarray]:
        hooks = Hooks(self.model)

        def run() -> np.ndarray:
            scores = []
            for edit in edits:
                with hooks.edited(edit):
                    scores.append(self._bare())
            return np.stack(scores)

        return run

    @torch.no_grad()
    def _bare(self) -> np.ndarray:
        """Label scores (N, E): the decoder's own forward and the head at the answer position, in the engine's
        batches. The model's own forward would compute 152,064 logits for every token; that is not compared
        with, since it would make any engine look good."""
        model = self.model
        scores = np.empty((len(self.items), EMOTIONS), dtype=np.float32)
        for places in Engine(model).batches(self.items.items):
            batch = model.collate([self.items.items[place] for place in places])
            hidden = model.decoder(
                inputs_embeds=batch.embeds,
                attention_mask=None if bool(batch.mask.all()) else batch.mask.long(),
                position_ids=model.position_ids(batch.mask),
                use_cache=False,
            ).last_hidden_state
            logits = model.network.get_output_embeddings()(hidden[:, -1]).float()
            scores[places] = self.readout.first_scores(logits).cpu().numpy()
        return scores

    def _timed(self, name: str, ours: Callable[[], object], other: Callable[[], object]) -> Result:
        """Both sides in turn, after one untimed run of each, and the peak of memory of each."""
        peaks = [self._peak(side) for side in (ours, other)]
        times = in_turn(
            {"ours": self._synchronised(ours), "other": self._synchronised(other)},
            self.settings.repeats,
            time.perf_counter,
        )
        if self.on_gpu:
            self.notes.append(f"{name}: peak memory {peaks[0]:.1f} GiB, other {peaks[1]:.1f} GiB.")
        self.settings.say(f"{name}: {statistics.median(times['ours']):.3f} s")
        return compared(name, times["ours"], times["other"], "s")

    def _synchronised(self, call: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            call()
            if self.on_gpu:
                torch.cuda.synchronize()

        return run

    def _peak(self, call: Callable[[], object]) -> float:
        """Largest memory (GiB) allocated on the GPU in a call; 0 without one."""
        if not self.on_gpu:
            call()
            return 0.0
        torch.cuda.reset_peak_memory_stats()
        self._synchronised(call)()
        return torch.cuda.max_memory_allocated() / 2**30


def thinker(size: Size, device: torch.device) -> Model:
    """A thinker with random weights: bf16 on a GPU, float32 on a CPU."""
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device.type == "cuda" else torch.float32)
    try:
        with device:
            config = Qwen2_5OmniThinkerConfig(**size.config)
            network = Qwen2_5OmniThinkerForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    family = Registry().family("qwen2_5_omni_thinker")
    card = ModelCard(
        kind="model", name="random-thinker", version=1, family="qwen2_5_omni_thinker",
        checkpoint="random/weights", modality="audio", licence="none: random weights",
    )  # fmt: skip
    model: Model = family(network, _NoWords(), card, None)
    return model


class _NoWords:
    """Stands for a tokenizer where only token ids are used."""

    eos_token_id = None
    chat_template = None


def items_for(model: Any, size: Size) -> Items:
    """Random log-mel frames through the tower, then a prompt of random tokens; lengths vary a little."""
    rng = np.random.default_rng(0)
    bins = model.network.config.audio_config.num_mel_bins
    vocabulary = model.text_config.vocab_size
    model.features = lambda frames: frames
    made = []
    for place in range(size.items):
        frames = rng.normal(size=(bins, size.frames - 8 * int(rng.integers(0, 4)))).astype(np.float32)
        audio = model.audio_embeddings(frames)
        words = torch.as_tensor(rng.integers(20, min(vocabulary, 50_000), size=size.words))
        ids = torch.cat([torch.zeros(audio.shape[0], dtype=torch.long), words])
        roles = torch.full((len(ids),), VALID, dtype=torch.uint8)
        roles[: audio.shape[0]] |= AUDIO | CONTENT
        roles[-1] |= ANSWER
        made.append(Prepared(f"item-{place:03d}", ids, roles, audio))
    gold = np.arange(size.items) % EMOTIONS
    return Items("random:test", tuple(made), gold, tuple(item.id for item in made))


if __name__ == "__main__":
    sys.exit(main())
