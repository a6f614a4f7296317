"""The training loop: bounded, resumable, with a moving average of the weights; on any device."""

import json
import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from geosam.drafts import draft
from geosam.model.config import NANO
from geosam.model.engine import CPU, Engine, has_bf16
from geosam.model.sam import Sam
from geosam.model.weights import fill, read_weights, save_weights
from geosam.training import checkpoint
from geosam.training.batches import FARTHEST, Batch, Batches, seen_twice
from geosam.training.crops import Sampler
from geosam.training.imagenet import load_imagenet
from geosam.training.pace import Limit, decayed
from geosam.training.scenes import Scene, read_scenes, read_textures
from geosam.training.steps import batch_loss

log = logging.getLogger(__name__)

WARMUP_STEPS = 200  # or a tenth of a run, if that is shorter
CHECKPOINT_EVERY_S = 90
LOG_EVERY = 25
PREFETCHED = 4  # batches a worker
ROUNDS, ROUND_SHARES = (2, 3, 5), (0.6, 0.2, 0.2)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that determines a training run; kept in its checkpoint.

    Attributes:
        steps: optimizer steps in all; None: as many as fit into the minutes.
        thaw: step from which the trunk learns too.
        images: crops a step.
        prompts: prompts a crop.
        rate: peak learning rate of the new parts.
        trunk_rate: peak learning rate of the trunk.
        average: decay of the moving average of the weights.
        seed: of weights and data.
        minutes: that a run may take, reading the data included, where no steps are given.
        whole_trunk: whether all of the trunk learns, see `make_optimizer`.
        steady: whether every crop is seen twice, moved, and should give the same answers.
    """

    steps: int | None
    thaw: int
    images: int = 8
    prompts: int = 12
    rate: float = 1e-3
    trunk_rate: float = 1.5e-4
    average: float = 0.999
    seed: int = 1
    minutes: float = 0.0
    whole_trunk: bool = False
    steady: bool = False


class Run:
    """A training run between two steps: weights, their average, the optimizer, the step."""

    def __init__(
        self, plan: Plan, start: Path | None = None, device: torch.device = CPU.device
    ) -> None:
        torch.manual_seed(plan.seed)
        self.plan = plan
        self.device = device
        self.half = has_bf16(device)
        self.limit = Limit(60 * plan.minutes, plan.steps)
        self.model = Sam(NANO)
        if start is None:
            load_imagenet(self.model.image_encoder.trunk)
        elif start.suffix == ".safetensors":
            fill(self.model, read_weights(start)[0], start, "nano")
        else:
            self.model.load_state_dict(torch.load(start, weights_only=True)["average"])
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # stub
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.optimizer = make_optimizer(self.model, plan)
        self.step = 0
        self.seconds = 0.0

    @property
    def share(self) -> float:
        """The share of the run that is over, 1 at its end."""
        return self.limit.share(self.step, self.seconds)

    def save(self, folder: Path) -> None:
        """Write the checkpoint, and the averaged weights as weights.safetensors, each at once."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
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
        saved = checkpoint.read(folder, self.plan, self.device)
        if saved is None:
            return
        self.model.load_state_dict(saved["model"])
        self.average = saved["average"]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.seconds = saved["step"], saved["seconds"]

    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """One optimizer step; the loss and the IoU of each round of prompts, still on the device.

        Nothing here waits for the device, which is always some steps' kernels behind.
        """
        plan, step = self.plan, self.step
        torch.manual_seed(plan.seed * 1_000_003 + step)
        set_rates(self.optimizer, plan, step, self.share)
        rng = np.random.default_rng((plan.seed, step, 1))
        rounds = int(rng.choice(ROUNDS, p=ROUND_SHARES))
        batch = Batch(*(part.to(self.device, non_blocking=True) for part in batch))
        shift = None
        if plan.steady:
            right, down = rng.integers(1, FARTHEST + 1, 2).tolist()
            batch, shift = seen_twice(batch, right, down), (right, down)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            loss, ious = batch_loss(self.model, batch, rounds, shift=shift)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self._blend(min(plan.average, (step + 1) / (step + 10)))
        self.step += 1
        return {"loss": loss.detach(), **ious}

    @torch.no_grad()
    def _blend(self, decay: float) -> None:
        own = self.model.state_dict()
        torch._foreach_lerp_(list(self.average.values()), [own[k] for k in self.average], 1 - decay)


def train(
    plan: Plan,
    data: Path,
    out: Path,
    *,
    start: Path | None = None,
    device: str = "auto",
    workers: int = 1,
) -> None:
    """Train nano; run again with the same plan to resume after any interruption.

    Args:
        plan: the run.
        data: folder with the training data, see `scenes`.
        out: folder of the run: checkpoint.pt, weights.safetensors, log.jsonl.
        start: weights, or the checkpoint of an earlier run, whose averaged weights to start from.
        device: see `load_model`.
        workers: processes that make the batches.

    Raises:
        TrainingError: what is in `out` was made with another plan.
        ModelError: there is no such device.
        WeightsError: the weights to start from are not nano's.
    """
    began = saved = logged = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    run = Run(plan, start, Engine.of(device).device)
    run.resume(out)
    before, waited = run.seconds, 0.0
    torch.backends.cudnn.benchmark = True  # a few sizes of crops, thousands of steps
    torch.set_float32_matmul_precision("high")
    batches = _batches(plan, data, run.step, workers, pinned=run.device.type == "cuda")
    sums: dict[str, list[Tensor]] = defaultdict(list)
    while run.share < 1:
        asked = time.monotonic()
        batch = next(batches)
        waited += time.monotonic() - asked
        for name, number in run.learn(batch).items():
            sums[name].append(number)
        run.seconds = before + time.monotonic() - began
        if run.step % LOG_EVERY == 0:
            row = {"step": run.step, "share": round(run.share, 4)}
            row |= {name: round(torch.stack(v).mean().item(), 4) for name, v in sums.items()}
            seconds = time.monotonic() - logged
            row["s_per_step"] = round(seconds / LOG_EVERY, 4)
            row["waiting"] = round(waited / seconds, 3)  # share of the time, for batches
            sums.clear()
            logged, waited = time.monotonic(), 0.0
            log.info("%s", row)
            with (out / "log.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
        if run.share == 1 or time.monotonic() - saved > CHECKPOINT_EVERY_S:
            saved = time.monotonic()
            run.save(out)


def _batches(plan: Plan, data: Path, first: int, workers: int, *, pinned: bool) -> Iterator[Batch]:
    """The batches from step `first` on, made in processes of their own, which share the data."""
    cv2.setNumThreads(1)  # its threads do not live on in those processes, which would wait for them
    scenes: dict[str, list[Scene]] = defaultdict(list)
    for scene in read_scenes(data):
        scenes[scene.kind].append(scene)
    sampler = Sampler(dict(scenes), read_textures(data))
    batches = Batches(sampler, plan.seed, plan.images, plan.prompts, NANO.size, plan.steady)
    yield from DataLoader(
        batches,
        batch_size=None,
        sampler=count(first),
        num_workers=workers,
        prefetch_factor=PREFETCHED,
        pin_memory=pinned,
    )


def make_optimizer(model: Sam, plan: Plan) -> torch.optim.AdamW:
    """AdamW over the new parts and the trunk's dense convolutions.

    Unless the whole trunk is to learn, its depthwise kernels and its first layers, down to stride
    4, stay as they are: their gradients are what costs most on a CPU and they hold 4 % of the
    weights.
    """
    trunk = model.image_encoder.trunk
    for parameter in trunk.parameters():
        parameter.requires_grad_(False)
    dense: list[Tensor] = [
        parameter
        for stage in list(trunk.stages)[2:]
        for module in stage.modules()
        if isinstance(module, nn.Conv2d) and module.groups == 1
        for parameter in module.parameters()
    ]
    frozen = {id(parameter) for parameter in trunk.parameters()}
    new = [parameter for parameter in model.parameters() if id(parameter) not in frozen]
    learning = list(trunk.parameters()) if plan.whole_trunk else dense
    groups: list[dict[str, Any]] = [{"params": new}, {"params": learning}]
    return torch.optim.AdamW(
        groups,
        lr=plan.rate,
        betas=(0.9, 0.98),
        weight_decay=0.02,
        fused=new[0].device.type == "cuda",
    )


def set_rates(optimizer: torch.optim.AdamW, plan: Plan, step: int, share: float) -> None:
    """Warm up, then go down as `decayed`; the trunk waits until `thaw`."""
    cosine = decayed(share)
    new, trunk = optimizer.param_groups
    warmup = min(WARMUP_STEPS, math.ceil(plan.steps / 10)) if plan.steps else WARMUP_STEPS
    new["lr"] = plan.rate * min(1.0, (step + 1) / warmup) * cosine
    thawed = step >= plan.thaw
    warm = min(1.0, (step - plan.thaw + 1) / warmup) if thawed else 0.0
    trunk["lr"] = plan.trunk_rate * warm * cosine
    for parameter in trunk["params"]:
        parameter.requires_grad_(thawed)
