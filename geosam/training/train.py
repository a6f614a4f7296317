"""The training loop: bounded, resumable, with a moving average of the weights."""

import json
import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from geosam.drafts import draft
from geosam.model.config import NANO
from geosam.model.sam import Sam
from geosam.model.weights import save_weights
from geosam.training import checkpoint
from geosam.training.batches import Batch, Batches
from geosam.training.crops import Sampler
from geosam.training.imagenet import load_imagenet
from geosam.training.scenes import Scene, read_scenes, read_textures
from geosam.training.steps import batch_loss

log = logging.getLogger(__name__)

WARMUP_STEPS = 200  # or a tenth of a run, if that is shorter
CHECKPOINT_EVERY_S = 180
LOG_EVERY = 25
ROUNDS, ROUND_SHARES = (2, 3, 5), (0.6, 0.2, 0.2)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that determines a training run; kept in its checkpoint.

    Attributes:
        steps: optimizer steps in all.
        thaw: step from which the trunk's 1x1 convolutions learn too.
        images: crops a step.
        prompts: prompts a crop.
        rate: peak learning rate of the new parts.
        trunk_rate: peak learning rate of the trunk.
        average: decay of the moving average of the weights.
        seed: of weights and data.
    """

    steps: int
    thaw: int
    images: int = 8
    prompts: int = 12
    rate: float = 1e-3
    trunk_rate: float = 1.5e-4
    average: float = 0.997
    seed: int = 1


class Run:
    """A training run between two steps: weights, their average, the optimizer, the step."""

    def __init__(self, plan: Plan, start: Path | None = None) -> None:
        torch.manual_seed(plan.seed)
        self.plan = plan
        self.model = Sam(NANO)
        load_imagenet(self.model.image_encoder.trunk)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stub
        if start is not None:
            self.model.load_state_dict(torch.load(start, weights_only=True)["average"])
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.optimizer = make_optimizer(self.model, plan)
        self.step = 0

    def save(self, folder: Path) -> None:
        """Write the checkpoint, and the averaged weights as weights.safetensors, each at once."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        averaged = Sam(NANO)
        averaged.load_state_dict(self.average)
        checkpoint.write(folder, self.plan, state)
        with draft(folder / "weights.safetensors") as place:
            save_weights(averaged, place)

    def resume(self, folder: Path) -> None:
        """Go on from the checkpoint of a folder, if it has one.

        Raises:
            TrainingError: it was made with another plan.
        """
        saved = checkpoint.read(folder, self.plan)
        if saved is None:
            return
        self.model.load_state_dict(saved["model"])
        self.average = saved["average"]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step = saved["step"]

    def learn(self, batch: Batch) -> dict[str, float]:
        """One optimizer step; the loss and the IoU of each round of prompts."""
        plan, step = self.plan, self.step
        torch.manual_seed(plan.seed * 1_000_003 + step)
        set_rates(self.optimizer, plan, step)
        rounds = int(np.random.default_rng((plan.seed, step, 1)).choice(ROUNDS, p=ROUND_SHARES))
        with torch.autocast("cpu", torch.bfloat16):
            loss, ious = batch_loss(self.model, batch, rounds)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self._blend(min(plan.average, (step + 1) / (step + 10)))
        self.step += 1
        return {"loss": loss.item(), **ious}

    @torch.no_grad()
    def _blend(self, decay: float) -> None:
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)


def train(plan: Plan, data: Path, out: Path, *, start: Path | None = None) -> None:
    """Train nano; run again with the same plan to resume after any interruption.

    Args:
        plan: the run.
        data: folder with the training data, see `scenes`.
        out: folder of the run: checkpoint.pt, weights.safetensors, log.jsonl.
        start: checkpoint of an earlier run, whose averaged weights to start from.
    """
    out.mkdir(parents=True, exist_ok=True)
    run = Run(plan, start)
    run.resume(out)
    saved = began = time.monotonic()
    first = run.step
    sums: dict[str, list[float]] = defaultdict(list)
    for batch in _batches(plan, data, first):
        for name, number in run.learn(batch).items():
            sums[name].append(number)
        if run.step % LOG_EVERY == 0:
            seconds = (time.monotonic() - began) / (run.step - first)
            row = {"step": run.step, "s_per_step": round(seconds, 3)}
            row |= {name: round(float(np.mean(values)), 4) for name, values in sums.items()}
            sums.clear()
            log.info("%s, %.0f min left", row, seconds * (plan.steps - run.step) / 60)
            with (out / "log.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
        if run.step == plan.steps or time.monotonic() - saved > CHECKPOINT_EVERY_S:
            saved = time.monotonic()
            run.save(out)


def _batches(plan: Plan, data: Path, first: int) -> Iterator[Batch]:
    """The batches from step `first` on, made in a process of their own."""
    scenes: dict[str, list[Scene]] = defaultdict(list)
    for scene in read_scenes(data):
        scenes[scene.kind].append(scene)
    sampler = Sampler(dict(scenes), read_textures(data))
    batches = Batches(sampler, plan.seed, plan.images, plan.prompts, NANO.size)
    yield from DataLoader(
        batches, batch_size=None, sampler=range(first, plan.steps), num_workers=1, prefetch_factor=6
    )


def make_optimizer(model: Sam, plan: Plan) -> torch.optim.AdamW:
    """AdamW over the new parts and the trunk's dense convolutions.

    The trunk's depthwise kernels and its first layers, down to stride 4, stay as ImageNet made
    them: their gradients are what costs most on a CPU and they hold 4 % of the weights.
    """
    trunk = model.image_encoder.trunk
    for parameter in trunk.parameters():
        parameter.requires_grad_(False)
    learning: list[Tensor] = [
        parameter
        for stage in list(trunk.stages)[2:]
        for module in stage.modules()
        if isinstance(module, nn.Conv2d) and module.groups == 1
        for parameter in module.parameters()
    ]
    frozen = {id(parameter) for parameter in trunk.parameters()}
    new = [parameter for parameter in model.parameters() if id(parameter) not in frozen]
    groups: list[dict[str, Any]] = [{"params": new}, {"params": learning}]
    return torch.optim.AdamW(
        groups,
        lr=plan.rate,
        betas=(0.9, 0.98),
        weight_decay=0.02,
    )


def set_rates(optimizer: torch.optim.AdamW, plan: Plan, step: int) -> None:
    """Warm up, then a cosine to a hundredth of the peak; the trunk waits until `thaw`."""
    cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / plan.steps))
    new, trunk = optimizer.param_groups
    warmup = min(WARMUP_STEPS, math.ceil(plan.steps / 10))
    new["lr"] = plan.rate * min(1.0, (step + 1) / warmup) * cosine
    thawed = step >= plan.thaw
    warm = min(1.0, (step - plan.thaw + 1) / warmup) if thawed else 0.0
    trunk["lr"] = plan.trunk_rate * warm * cosine
    for parameter in trunk["params"]:
        parameter.requires_grad_(thawed)
