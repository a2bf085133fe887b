"""Writes ``tests/golden/saelens``: SAEs as SAELens saves and reads them, with the activations it computes.

Needs sae-lens (recorded with 6.54.12): ``python tests/record_saelens.py``. The hub is played by local files
in Gemma Scope's and Llama Scope's layouts.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

D, FEATURES, ROWS = 6, 10, 7
HOOK = "blocks.1.hook_resid_post"


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float32)


def weights() -> dict[str, torch.Tensor]:
    return {
        "W_enc": drawn(D, FEATURES), "W_dec": drawn(FEATURES, D), "b_enc": drawn(FEATURES) / 4,
        "b_dec": drawn(D) / 2,
    }  # fmt: skip


def saelens_saes() -> dict[str, object]:
    """Each kind that SAELens has and we read, with random weights."""
    from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    common = {"d_in": D, "d_sae": FEATURES, "metadata": SAEMetadata(hook_name=HOOK, model_name="tiny")}
    made = {
        "standard": StandardSAE(StandardSAEConfig(apply_b_dec_to_input=True, **common)),
        "jumprelu": JumpReLUSAE(JumpReLUSAEConfig(apply_b_dec_to_input=False, **common)),
        "topk": TopKSAE(
            TopKSAEConfig(k=3, rescale_acts_by_decoder_norm=True, apply_b_dec_to_input=True, **common)
        ),
    }
    for name, sae in made.items():
        state = weights() | ({"threshold": drawn(FEATURES).abs()} if name == "jumprelu" else {})
        sae.load_state_dict(state)
    return made


def gemma_scope(folder: Path) -> object:
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig

    folder.mkdir(parents=True)
    arrays = weights() | {"threshold": drawn(FEATURES).abs()}
    np.savez(folder / "params.npz", **{name: each.numpy() for name, each in arrays.items()})
    loaders.hf_hub_download = lambda **_: str(folder / "params.npz")
    _, state, _ = loaders.gemma_2_sae_huggingface_loader(
        "google/gemma-scope-2b-pt-res", "layer_1/width_16k/average_l0_5"
    )
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=D, d_sae=FEATURES, apply_b_dec_to_input=False))
    sae.load_state_dict(state)
    return sae


def llama_scope(folder: Path) -> object:
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
    from safetensors.torch import save_file

    (folder / "checkpoints").mkdir(parents=True)
    norm = 1.75
    facts = {
        "d_model": D, "d_sae": FEATURES, "jump_relu_threshold": 0.4, "hook_point_in": HOOK,
        "dataset_average_activation_norm": {"in": norm, "out": norm},
    }  # fmt: skip
    (folder / "hyperparams.json").write_text(json.dumps(facts))
    found = weights()
    names = {"encoder.weight": found["W_enc"].T, "encoder.bias": found["b_enc"]}
    names |= {"decoder.weight": found["W_dec"].T, "decoder.bias": found["b_dec"]}
    save_file(
        {name: each.contiguous() for name, each in names.items()}, folder / "checkpoints/final.safetensors"
    )
    loaders.hf_hub_download = lambda *args, **kwargs: str(
        folder / "checkpoints/final.safetensors" if kwargs.get("subfolder") else folder / "hyperparams.json"
    )
    _, state, _ = loaders.llama_scope_sae_huggingface_loader(
        "fnlp/Llama3_1-8B-Base-LXR-8x", "L1R", cfg_overrides={"dtype": "float32"}
    )
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=D, d_sae=FEATURES, apply_b_dec_to_input=False))
    sae.load_state_dict(state)
    sae.fold_activation_norm_scaling_factor(D**0.5 / norm)  # What `from_pretrained` does, from its table.
    return sae


def record(folder: Path) -> None:
    torch.manual_seed(0)
    h = drawn(ROWS, D)
    saes = saelens_saes()
    for name, sae in saes.items():
        sae.save_model(folder / name)  # type: ignore[attr-defined]
    saes["gemma_scope"] = gemma_scope(folder / "gemma_scope")
    saes["llama_scope"] = llama_scope(folder / "llama_scope")
    expected: dict[str, object] = {"h": h.tolist()}
    with torch.no_grad():
        for name, sae in saes.items():
            z = sae.encode(h)  # type: ignore[attr-defined]
            decoded = sae.decode(z)  # type: ignore[attr-defined]
            expected[name] = {"z": z.tolist(), "decoded": decoded.tolist()}
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    record(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "golden" / "saelens")
