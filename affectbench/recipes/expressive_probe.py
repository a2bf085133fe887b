"""Figures of the expressive reference model: prompting, direction steering and circuit modulation, judged.

Self-contained on purpose, like ``measure``: the card's figures do not come from the harness that the model
calibrates. The judge here is a logistic regression on the words of generated replies.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from affectbench.emotion_words import emotions_in, masked
from affectbench.generators import expressions, narratives
from affectbench.generators.expressions import EMOTIONS, LABELS, NONE, Scene
from affectbench.recipes.expressive_data import chat, own_scenes
from affectbench.recipes.text_probe import DATA_SEED, Probe

__all__ = [
    "SCENES",
    "Circuit",
    "Speaker",
    "States",
    "circuits",
    "figures",
    "judge_of",
    "load",
    "random_circuits",
]

LONGEST: Final = 40
"""Tokens of a reply."""
UNITS: Final = 0.02
HEADS: Final = 0.25
"""Shares of MLP units and of heads that a circuit holds."""
DOSES: Final = (0.25, 0.5, 1.0, 1.5, 2.0)
ALPHAS: Final = (2.0, 4.0, 8.0, 12.0)
"""Those of the protocols `circuit-modulation` and `direction-steering`."""
SCENES: Final = 48
"""Test situations."""


@dataclass(frozen=True)
class States:
    """Of some prompts' last tokens, for each layer: the residual stream behind it (L, N, d), what enters
    down_proj (L, N, units) and o_proj (L, N, d)."""

    residual: Tensor
    units: Tensor
    heads: Tensor


@dataclass(frozen=True)
class Circuit:
    """What is added at dose 1: to the inputs of down_proj (L, units) and of o_proj (L, d)."""

    units: Tensor
    heads: Tensor


@dataclass(frozen=True)
class Speaker:
    """A model that replies, greedily, to scenes."""

    model: Any
    tokenizer: Any

    @property
    def layers(self) -> Any:
        return self.model.model.layers

    def _encoded(self, scenes: Sequence[Scene], label: str) -> Any:
        prompts = [chat(self.tokenizer, scene, label) for scene in scenes]
        return self.tokenizer(prompts, add_special_tokens=False, padding=True, return_tensors="pt")

    @torch.no_grad()
    def replies(self, scenes: Sequence[Scene], label: str) -> list[str]:
        """A reply to each scene; one that did not end by itself ends in "…"."""
        inputs = self._encoded(scenes, label)
        end, pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        found = self.model.generate(
            **inputs, max_new_tokens=LONGEST, do_sample=False, pad_token_id=pad, eos_token_id=end
        )[:, inputs["input_ids"].shape[1] :]
        texts = self.tokenizer.batch_decode(found, skip_special_tokens=True)
        ended = (found == end).any(1).tolist()
        return [text if done else f"{text}…" for text, done in zip(texts, ended, strict=True)]

    @torch.no_grad()
    def states(self, scenes: Sequence[Scene], label: str) -> States:
        """At the last token of the prompts that demand `label`."""
        residual: list[Tensor] = []
        units: list[Tensor] = []
        heads: list[Tensor] = []
        hooks = []
        for layer in self.layers:
            hooks += [
                layer.register_forward_hook(lambda _m, _a, out: residual.append(_stream(out)[:, -1])),
                layer.mlp.down_proj.register_forward_pre_hook(lambda _m, args: units.append(args[0][:, -1])),
                layer.self_attn.o_proj.register_forward_pre_hook(
                    lambda _m, args: heads.append(args[0][:, -1])
                ),
            ]
        with _removed(hooks):
            self.model(**self._encoded(scenes, label))
        return States(torch.stack(residual), torch.stack(units), torch.stack(heads))

    @contextmanager
    def steered(self, directions: Tensor, layers: Sequence[int], alpha: float) -> Iterator[None]:
        """Adds alpha times the stream's rms times `directions` (L, d) behind some layers, at the last token
        of every pass: that of the prompt and each generated one."""

        def hook(direction: Tensor) -> Any:
            def add(_module: Any, _args: Any, out: Any) -> Any:
                stream = _stream(out).clone()
                size = stream[:, -1].pow(2).mean(-1, keepdim=True).sqrt()
                stream[:, -1] += alpha * size * direction
                return (stream, *out[1:]) if isinstance(out, tuple) else stream

            return add

        with _removed(
            [self.layers[layer].register_forward_hook(hook(directions[layer])) for layer in layers]
        ):
            yield

    @contextmanager
    def modulated(self, circuit: Circuit, dose: float) -> Iterator[None]:
        """Adds a circuit's vectors, times `dose`, where `steered` does."""

        def hook(vector: Tensor) -> Any:
            def add(_module: Any, args: Any) -> Any:
                inputs = args[0].clone()
                inputs[:, -1] += dose * vector
                return (inputs,)

            return add

        hooks = []
        for layer, units, heads in zip(self.layers, circuit.units, circuit.heads, strict=True):
            hooks.append(layer.mlp.down_proj.register_forward_pre_hook(hook(units)))
            hooks.append(layer.self_attn.o_proj.register_forward_pre_hook(hook(heads)))
        with _removed(hooks):
            yield


def _stream(out: Any) -> Tensor:
    found: Tensor = out[0] if isinstance(out, tuple) else out
    return found


@contextmanager
def _removed(hooks: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def load(folder: Path) -> Speaker:
    """The model of `folder` in float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return Speaker(model, AutoTokenizer.from_pretrained(folder))


def judge_of(held_out: bool | None, *, without_words: bool = False, n_per_label: int = 300) -> Any:
    """A classifier of texts into `LABELS` (indices), trained on replies of template parts that are held out
    or not, or all (None); on demand without their emotion words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rows = expressions.labelled_replies(n_per_label, 0, held_out)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    judge = make_pipeline(words, LogisticRegression(C=10.0, max_iter=1000))
    texts = [masked(text) if without_words else text for text, _ in rows]
    return judge.fit(texts, [LABELS.index(label) for _, label in rows])


def differences(states: Sequence[States], part: str) -> Tensor:
    """(E, L, channels): the mean under each emotion's prompt minus the mean over emotions."""
    means = torch.stack([getattr(found, part).mean(1) for found in states])
    return means - means.mean(0)


def circuits(speaker: Speaker, states: Sequence[States]) -> list[Circuit]:
    """For each emotion the units and heads whose mean activity writes most along its direction behind their
    layer, and what sets them apart from the six emotions' mean."""
    directions = functional.normalize(differences(states, "residual"), dim=-1)
    found = []
    for e, own in enumerate(states):
        scores = []
        for layer, module in enumerate(speaker.layers):
            along = directions[e, layer]
            units = own.units[layer].mean(0) * (along @ module.mlp.down_proj.weight)
            heads = own.heads[layer].mean(0) * (along @ module.self_attn.o_proj.weight)
            scores.append((units, heads.reshape(_heads(speaker), -1).sum(-1)))
        chosen = [
            _best(torch.stack(values), share)
            for values, share in zip(zip(*scores, strict=True), (UNITS, HEADS), strict=True)
        ]
        found.append(_circuit(states, e, *chosen))
    return found


def random_circuits(speaker: Speaker, states: Sequence[States], seed: int) -> list[Circuit]:
    """As many units and heads, drawn anywhere, with their own differences."""
    rng = torch.Generator().manual_seed(seed)
    shape = states[0].units.shape
    heads = (len(speaker.layers), _heads(speaker))
    return [
        _circuit(
            states, e,
            _best(torch.rand(shape[0], shape[2], generator=rng), UNITS),
            _best(torch.rand(*heads, generator=rng), HEADS),
        )
        for e in range(len(states))
    ]  # fmt: skip


def _heads(speaker: Speaker) -> int:
    return int(speaker.model.config.num_attention_heads)


def _best(scores: Tensor, share: float) -> Tensor:
    """1 at the best `share` of all scores (L, n), else 0."""
    kept = torch.zeros(scores.numel())
    kept[scores.flatten().topk(max(1, round(share * scores.numel()))).indices] = 1.0
    return kept.view_as(scores)


def _circuit(states: Sequence[States], e: int, units: Tensor, heads: Tensor) -> Circuit:
    each = states[0].heads.shape[-1] // heads.shape[1]
    return Circuit(
        differences(states, "units")[e] * units,
        differences(states, "heads")[e] * heads.repeat_interleave(each, 1),
    )


def figures(folder: Path) -> dict[str, float]:
    """What the card reports, in percent of replies unless named otherwise. Doses are chosen on validation
    scenes, everything else is of test scenes."""
    speaker = load(folder)
    judge = judge_of(None)
    validation, test = some(own_scenes("validation"), SCENES // 4), some(own_scenes("test"), SCENES)
    identification = some(own_scenes("identification"), 2 * SCENES)
    found = _prompted(speaker, judge, test)
    states = [speaker.states(identification, label) for label in EMOTIONS]
    directions = functional.normalize(differences(states, "residual"), dim=-1)
    middle = range(len(speaker.layers) // 3, 2 * len(speaker.layers) // 3)
    edits: dict[str, Any] = {
        "steering": lambda e, alpha: speaker.steered(directions[e], middle, alpha),
    }
    kinds = {"circuit": circuits(speaker, states), "random": random_circuits(speaker, states, DATA_SEED)}
    for name, sets in kinds.items():
        edits[name] = lambda e, dose, sets=sets: speaker.modulated(sets[e], dose)
    for name in ("steering", "circuit"):
        doses = ALPHAS if name == "steering" else DOSES
        tried = [_edited(speaker, judge, validation, edits[name], dose)[0] for dose in doses]
        found[f"{name}.dose"] = doses[int(np.argmax(tried))]
    found["random.dose"] = found["circuit.dose"]
    for name, edit in edits.items():
        accuracy, texts = _edited(speaker, judge, test, edit, found[f"{name}.dose"])
        found |= {f"{name}.accuracy": accuracy} | _quality(name, texts, test * len(EMOTIONS))
    writer = Probe(speaker.model, speaker.tokenizer, [])
    found["perplexity"] = writer.perplexity(narratives.language_text(300, DATA_SEED, held_out=True))
    found["cloze"] = 100 * writer.cloze_accuracy(narratives.cloze(200, DATA_SEED))
    return found


def some(scenes: list[Scene], n: int) -> list[Scene]:
    """`n` of the scenes, always the same ones."""
    chosen = np.random.default_rng(DATA_SEED).permutation(len(scenes))[:n]
    return [scenes[k] for k in sorted(chosen)]


def _percent(values: Any) -> float:
    return 100 * float(np.mean(values))


def _prompted(speaker: Speaker, judge: Any, test: list[Scene]) -> dict[str, float]:
    texts = [text for label in EMOTIONS for text in speaker.replies(test, label)]
    gold = np.repeat(np.arange(len(EMOTIONS)), len(test))
    plain = speaker.replies(test, NONE)
    bare = judge_of(None, without_words=True).predict([masked(text) for text in texts])
    return {
        "prompt.accuracy": _percent(judge.predict(texts) == gold),
        "prompt.accuracy_without_words": _percent(bare == gold),
        "prompt.accuracy_other_wordings": _percent(judge_of(True).predict(texts) == gold),
        "plain.none": _percent(judge.predict(plain) == LABELS.index(NONE)),
        **_quality("prompt", texts, test * len(EMOTIONS)),
        **_quality("plain", plain, test),
    }


def _quality(name: str, texts: list[str], scenes: list[Scene]) -> dict[str, float]:
    """Shares of replies that ended, that name an emotion, and that hold the noun of one of the topics."""
    about = [
        any(topic.split()[-1].lower() in text.lower() for topic in scene.topics)
        for text, scene in zip(texts, scenes, strict=True)
    ]
    return {
        f"{name}.ended": _percent([not text.endswith("…") for text in texts]),
        f"{name}.named": _percent([bool(emotions_in(text)) for text in texts]),
        f"{name}.topic": _percent(about),
    }


def _edited(
    speaker: Speaker, judge: Any, scenes: list[Scene], edit: Any, dose: float
) -> tuple[float, list[str]]:
    """Percent of replies to plain prompts judged as the emotion that was added, and all replies."""
    texts: list[str] = []
    for e in range(len(EMOTIONS)):
        with edit(e, dose):
            texts += speaker.replies(scenes, NONE)
    gold = np.repeat(np.arange(len(EMOTIONS)), len(scenes))
    return _percent(judge.predict(texts) == gold), texts
