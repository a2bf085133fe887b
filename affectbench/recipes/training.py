"""The training loop shared by the reference recipes: seeding, schedule, optimiser and progress."""

import math
from collections.abc import Callable

import torch

__all__ = ["Progress", "optimise", "seed_everything"]

Progress = Callable[[str], None]


def seed_everything(seed: int, threads: int) -> None:
    """Seeds torch and fixes its thread count: same seed, machine and threads give the same weights."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)


def _learning_rate(step: int, steps: int, warmup: int) -> float:
    """Factor on the peak rate: linear warm-up, then a cosine to a tenth."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.1 + 0.45 * (1.0 + math.cos(math.pi * done))


def _groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, object]]:
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for _, p in named if p.ndim >= 2]
    vectors = [p for _, p in named if p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def optimise(
    model: torch.nn.Module,
    loss_at: Callable[[int], torch.Tensor],
    *,
    steps: int,
    peak_rate: float,
    weight_decay: float,
    progress: Progress | None = None,
) -> None:
    """AdamW with a warmed-up cosine schedule and gradient norm clipped to 1.

    Args:
        model: trained in place.
        loss_at: step -> scalar loss of that step's batch.
        steps: number of updates.
        peak_rate: largest learning rate.
        weight_decay: on matrices only.
        progress: called every 50 steps with a line of text.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    optimiser = torch.optim.AdamW(_groups(model, weight_decay), lr=peak_rate, betas=(0.9, 0.98))
    model.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = peak_rate * _learning_rate(step, steps, warmup=50)
        loss = loss_at(step)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the training loss is {loss.item()} at step {step}: lower the learning rate"
            )
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if progress is not None and (step + 1) % 50 == 0:
            progress(f"step {step + 1}/{steps}, loss {loss.item():.3f}")
    model.eval()
