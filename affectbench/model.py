"""The fixed interface of model wrappers, and the base class that does nearly all of the work.

A family file in ``models/`` subclasses `Model` and declares where things are; everything that runs, edits
or reads a model goes through this class. Sequences are left-padded, so the answer position of every row is
the last column.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from affectbench.batch import Batch, Prefix, Prepared
from affectbench.checkpoint import running_device
from affectbench.errors import AffectbenchError
from affectbench.experts import expert_width, experts_in, tap_experts, tap_of
from affectbench.intervention import ANSWER, AUDIO, CONTENT, VALID
from affectbench.passes import can_resume, can_trim, replaced, shortcuts
from affectbench.products import quicken
from affectbench.prompt_tokens import PromptTokens
from affectbench.sites import GATE, NEURON, SiteShape
from affectbench.stream import Stream

if TYPE_CHECKING:
    from affectbench.dataset import Example, RenderedPrompt
    from affectbench.task import ModelCard


class Model(Stream, PromptTokens):
    """A causal decoder whose units can be read and edited. Subclasses declare a family.

    The decoder gets ready-made input embeddings, so that an audio tower runs once for an item, whatever
    number of interventions follows.
    """

    name: ClassVar[str] = ""
    modalities: ClassVar[tuple[str, ...]] = ("text",)
    architectures: ClassVar[tuple[str, ...]] = ()
    """The classes of transformers that the family is known to read; `write_tiny` makes each of them."""
    all_of_class: ClassVar[bool] = True
    """Whether `network` is the checkpoint's whole class, whose forward takes sounds too, or a part of it."""

    def __init__(self, network: Any, tokenizer: Any, card: ModelCard, folder: Path | None) -> None:
        self.network = network.eval().requires_grad_(False)
        quicken(self.network)
        self.tokenizer = tokenizer
        self.card = card
        self.folder = folder
        self.device = running_device(network.get_input_embeddings())
        self.dtype = next(network.parameters()).dtype
        self.tuple_layers = False
        self.folds: tuple[str, ...] = ()
        self.experts = [experts_in(layer) for layer in self.layers]
        fused = [found for found in self.experts if found is not None]
        if fused:
            tap_experts(network, fused)

    # What a family declares. The defaults fit most decoder-only models of transformers.

    @classmethod
    def load(cls, card: ModelCard, source: str, *, device: str, dtype: torch.dtype) -> Model:
        """Load the checkpoint at `source` (a folder or hub id). Raises `AffectbenchError` where it cannot."""
        raise AffectbenchError(f"family {cls.name!r} does not say how to load {source}")

    @classmethod
    def write_tiny(cls, folder: Path, *, architecture: str | None = None, seed: int = 0) -> None:
        """Save a checkpoint of the real class with few random weights, for `load` to read from `folder`.

        `architecture` is one of `architectures`, the first by default. `affectbench.tiny` has what it takes.
        Raises `AffectbenchError` where the family cannot.
        """
        raise AffectbenchError(
            f"family {cls.name!r} makes no tiny instance to check",
            hint="the family file must override `write_tiny` (models/causal_lm.py is an example), or check "
            "a real checkpoint",
        )

    @cached_property
    def decoder(self) -> nn.Module:
        return self.network.get_decoder()  # type: ignore[no-any-return]

    @cached_property
    def layers(self) -> list[Any]:
        found = getattr(self.decoder, "layers", None)
        return list(self.decoder.h if found is None else found)  # type: ignore[arg-type]

    @cached_property
    def text_config(self) -> Any:
        return self.network.config.get_text_config()

    @cached_property
    def stops(self) -> Tensor:
        """Token ids (n,) that end an answer: the tokenizer's and all that the checkpoint names."""
        generation = getattr(self.network, "generation_config", None)
        named = [
            self.tokenizer.eos_token_id,
            self.text_config.eos_token_id,
            getattr(generation, "eos_token_id", None),
        ]
        found = {id for ids in named for id in (ids if isinstance(ids, list) else [ids]) if id is not None}
        return torch.tensor(sorted(found), dtype=torch.long, device=self.device)

    def cache(self) -> Any:
        """An empty key-value cache, with windows where the model has them."""
        from transformers import DynamicCache

        return DynamicCache(config=self.text_config)

    def mlp(self, layer: int) -> Any:
        return self.layers[layer].mlp

    def activation(self, layer: int) -> Any:
        """The module whose output is act(gate)."""
        mlp = self.mlp(layer)
        for name in ("act_fn", "activation_fn", "act"):
            if isinstance(getattr(mlp, name, None), nn.Module):
                return getattr(mlp, name)
        raise AffectbenchError(
            f"{type(mlp).__name__} has no activation module to hook",
            hint="the family file must override `activation`",
        )

    def down(self, layer: int) -> Any:
        """The module that writes the neurons into the residual stream: linear, or a layer's fused experts."""
        if self.experts[layer] is not None:
            return self.experts[layer]
        mlp = self.mlp(layer)
        named = (getattr(mlp, name, None) for name in ("down_proj", "c_proj", "dense_4h_to_h"))
        found = next((module for module in named if module is not None), None)
        if found is None:
            raise AffectbenchError(
                f"layer {layer}: {type(mlp).__name__} has no `down_proj` to read or edit",
                hint="the family file must override `down`",
            )
        return found

    def width(self, layer: int) -> int:
        """Neurons of a layer; those of expert e start at e times the width of an expert."""
        experts = self.experts[layer]
        if experts is None:
            down = self.down(layer)
            return int(getattr(down, "in_features", None) or down.nx)  # GPT-2 counts by nx.
        return int(experts.num_experts) * expert_width(experts)

    def position_ids(self, mask: Tensor) -> Tensor:
        """Positions (B, T) that ignore left padding."""
        return (mask.long().cumsum(-1) - 1).clamp_min(0)

    def audio_embeddings(self, waveform: Any) -> Tensor:
        """Embeddings (A, d) of a 16 kHz mono waveform, one for each audio placeholder token."""
        raise AffectbenchError(f"{self.card.name} takes no audio", hint="choose a model of modality 'audio'")

    audio_token: str = ""
    """The placeholder of one audio embedding."""
    audio_marks: ClassVar[tuple[str, str]] = ("", "")
    """What stands before and after an item's placeholders, for checkpoints whose template does not say."""

    def expanded(self, count: int) -> str:
        """What the class's processor makes of the one placeholder of a clip of `count` embeddings."""
        return self.audio_token * count

    # Sites.

    @cached_property
    def shape(self) -> SiteShape:
        """Layers and units of the sites `gate` and `neuron`, which have the same shape."""
        widths = [self.width(layer) for layer in range(len(self.layers))]
        if len(set(widths)) != 1:
            raise AffectbenchError(
                f"the layers of {self.card.name} differ in width: {widths}",
                hint="flat unit indices need one width; dense beside expert layers are not supported",
            )
        return SiteShape(len(widths), widths[0])

    def site_module(self, site: str, layer: int) -> tuple[Any, Literal["input", "output"]]:
        """The module that carries `site` at `layer`, and which side of it."""
        experts = self.experts[layer]
        if experts is not None and site in (GATE, NEURON):
            return tap_of(experts, site), "output"
        if site == GATE:
            return self.activation(layer), "output"
        if site == NEURON:
            return self.down(layer), "input"
        return self.stream_module(site, layer)

    # From examples to inputs.

    def prepare(self, example: Example, prompt: RenderedPrompt) -> Prepared:
        """Tokenise one item; an audio item's tower runs here, once."""
        text, span = self.render(prompt)
        audio = None
        if self.audio_token and example.audio is not None:
            audio = self.audio_embeddings(example.waveform())
            text, span = self._with_placeholders(text, span, audio.shape[0])
        tokens, offsets = self._tokens(text, offsets=span is not None, again=prompt.double_special)
        ids = torch.tensor(tokens, dtype=torch.long)
        roles = torch.full_like(ids, VALID, dtype=torch.uint8)
        if span is not None:
            starts_ends = torch.tensor(offsets, dtype=torch.long)
            inside = (starts_ends[:, 0] < span[1]) & (starts_ends[:, 1] > span[0])
            roles[inside] |= CONTENT
        if self.audio_token:
            placeholders = ids == self.tokenizer.convert_tokens_to_ids(self.audio_token)
            found, frames = int(placeholders.sum()), 0 if audio is None else audio.shape[0]
            if found != frames:
                raise AffectbenchError(
                    f"item {example.id}: {found} audio placeholders for {frames} audio frames",
                    hint="the prompt of an item with audio must contain {audio} exactly once",
                )
            roles[placeholders] |= AUDIO | CONTENT
        roles[-1] |= ANSWER
        return Prepared(example.id, ids, roles, audio)

    def _with_placeholders(
        self, text: str, span: tuple[int, int] | None, count: int
    ) -> tuple[str, tuple[int, int] | None]:
        """A rendered prompt with its one placeholder written out, and where the item's words stand then."""
        place = text.find(self.audio_token)
        if place < 0:
            return text, span
        expanded = self.expanded(count)
        if span is not None and span[0] > place:
            shift = len(expanded) - len(self.audio_token)
            span = (span[0] + shift, span[1] + shift)
        return text[:place] + expanded + text[place + len(self.audio_token) :], span

    def open_prompt(self, name: str, text: str) -> Prepared:
        """Text to be continued. It begins with the token that lm-eval puts before a document."""
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        first = self.tokenizer.bos_token_id
        first = self.tokenizer.eos_token_id if first is None else first
        if first is not None:
            ids = [first, *ids]
        roles = torch.full((len(ids),), VALID | CONTENT, dtype=torch.uint8)
        roles[-1] |= ANSWER
        return Prepared(name, torch.tensor(ids, dtype=torch.long), roles)

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings of token ids, shape (..., d)."""
        return self.network.get_input_embeddings()(ids.to(self.device))  # type: ignore[no-any-return]

    def collate(self, items: Sequence[Prepared]) -> Batch:
        """Left-pad items into one batch on the model's device."""
        length = max(len(item) for item in items)
        ids = torch.zeros(len(items), length, dtype=torch.long)
        roles = torch.zeros(len(items), length, dtype=torch.uint8)
        for row, item in enumerate(items):
            ids[row, length - len(item) :] = item.ids
            roles[row, length - len(item) :] = item.roles
        embeds = self.embed(ids)
        roles = roles.to(self.device)
        for row, item in enumerate(items):
            if item.audio is not None:
                embeds[row, (roles[row] & AUDIO).bool()] = item.audio.to(embeds)
        return Batch(embeds, roles.bool(), roles)

    # Forward passes.

    def decode(
        self, batch: Batch, *, prefix: Prefix | None = None, cache: Any = None, last: int | None = None
    ) -> Tensor:
        """Hidden states after the final norm, shape (B, T, d); with `last`, at least so many last columns.

        `prefix` replaces the layers below it. `cache` is a transformers cache that is read and extended;
        `batch.mask` then covers the cached tokens too. `last` promises that only so many last columns are
        read: the last layer is not run for the others.
        """
        cache = batch.before if cache is None else cache
        full = bool(batch.mask.all())
        # Without padding all rows have the positions of one, and what follows from them is made once.
        positions = self.position_ids(batch.mask[:1] if full else batch.mask)[..., -batch.embeds.shape[1] :]
        attention: Any = None if full else batch.mask.long()
        if batch.branches is not None:
            positions = batch.branches.positions(positions)
            attention = batch.branches.attention(batch.mask, self.text_config, batch.embeds.dtype)
        with replaced(shortcuts(self, prefix, last)):
            output = self.decoder(
                **self.fed(batch.embeds),
                attention_mask=attention,
                position_ids=positions,
                past_key_values=cache,
                use_cache=cache is not None,
            )
        return output.last_hidden_state.to(self.device)  # type: ignore[no-any-return]

    def fed(self, embeds: Tensor) -> dict[str, Tensor]:
        """What the decoder is given of a batch's embeddings (B, T, d)."""
        return {"inputs_embeds": embeds}

    def logits(self, hidden: Tensor) -> Tensor:
        """Vocabulary logits (..., V) in float32."""
        logits: Tensor = self.network.get_output_embeddings()(hidden).to(self.device).float()
        cap = getattr(self.text_config, "final_logit_softcapping", None)
        if cap:
            logits = torch.tanh(logits / cap) * cap
        factor = getattr(self.text_config, "logit_scale", None)
        divisor = getattr(self.text_config, "logits_scaling", None)
        return logits.mul(1.0 if factor is None else factor).div(1.0 if divisor is None else divisor)

    @cached_property
    def trimmable(self) -> bool:
        """Whether the last layer can be run for the columns that are read alone."""
        return can_trim(self)

    @cached_property
    def resumable(self) -> bool:
        """Whether a pass can go on from what another pass had at a layer."""
        return can_resume(self)

    # Identity.

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    def planted(self) -> Mapping[str, Any] | None:
        """The ground truth that the card names beside the weights, or None.

        Raises `AffectbenchError` where the named file is missing.
        """
        if self.card.planted is None or self.folder is None:
            return None
        path = self.folder / self.card.planted
        if not path.is_file():
            raise AffectbenchError(
                f"model {self.card.name}: `planted` names {path}, which is not there",
                hint="rebuild the model, or take the key out of its card",
            )
        return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
