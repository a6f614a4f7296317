"""A fine-tuning run between two steps: what it has learned, and the best of it so far."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn

from geosam.model.engine import has_bf16
from geosam.training import checkpoint
from geosam.training.batches import Batch
from geosam.training.learners import Learner
from geosam.training.measure import Marks, gain
from geosam.training.pace import decayed

SEED = 1
RATE, ENCODER_RATE = 3e-4, 5e-5  # at most
WARMUP_STEPS = 20
AVERAGE = 0.98  # decay of the moving average of the weights
WAY = 0.5  # of the way from the model's weights to that average, unless all of it serves better
ROUNDS, ROUND_SHARES = (1, 2), (0.75, 0.25)  # corrections cost as much as first prompts


@dataclass(frozen=True, slots=True)
class Course:
    """All that determines a run; kept in its checkpoint."""

    model: str
    encoder: bool
    places: str
    bands: tuple[int, ...]
    processes: int
    seed: int = SEED


class Run:
    """A run between two steps: weights, their average, the best average so far, the optimizer."""

    def __init__(self, learner: Learner, course: Course) -> None:
        self.learner = learner
        self.course = course
        self.device = next(learner.network.parameters()).device
        self.half = has_bf16(self.device)
        learned = dict(learner.network.named_parameters())
        if not course.encoder:
            learned = {k: v for k, v in learned.items() if not k.startswith("image_encoder.")}
        self.learned = {k: v.requires_grad_() for k, v in learned.items()}
        groups: list[dict[str, Any]] = [
            {"params": [v for k, v in learned.items() if k.startswith("image_encoder.") is of],
             "peak": peak}
            for of, peak in ((False, RATE), (True, ENCODER_RATE))
        ]  # fmt: skip
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], betas=(0.9, 0.98), weight_decay=0.01
        )
        self.average = {k: v.detach().clone() for k, v in self.learned.items()}
        self.original = {k: v.clone() for k, v in self.average.items()}
        self.best = self.original
        self.step = 0
        self.seconds = 0.0
        self.losses: list[float] = []
        self.looks: list[tuple[int, float, float]] = []  # step, mean IoU from a click, from a box

    def learn(self, batch: Batch, share: float) -> None:
        """One optimizer step, when a share of the run is over: rates follow a cosine down."""
        torch.manual_seed(self.course.seed * 1_000_003 + self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * min(1.0, (self.step + 1) / WARMUP_STEPS) * decayed(share)
        rounds = int(
            np.random.default_rng((self.course.seed, self.step, 1)).choice(ROUNDS, p=ROUND_SHARES)
        )
        moved = Batch(*(part.to(self.device) for part in batch))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            loss = self.learner.loss(moved, rounds)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        parameters = list(self.learned.values())
        if self.course.processes > 1:
            share_gradients(parameters, self.course.processes)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        decay = min(AVERAGE, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for name, value in self.learned.items():
                self.average[name].lerp_(value, 1 - decay)
        self.step += 1
        self.losses.append(loss.item())

    def weights(self, way: float) -> dict[str, Tensor]:
        """Those that lie a share of the way from the model's own to what was learned."""
        return {k: torch.lerp(v, self.average[k], way) for k, v in self.original.items()}

    def note(self, part: Marks, whole: Marks) -> None:
        """Keep what a look at the polygons held out has shown, part of the way and all of it.

        Part of it loses least on what is not looked at; so the whole is taken only if it serves
        clearly better.
        """
        clearly = gain((part.click + part.box) / 2, (whole.click + whole.box) / 2)[1] > 0
        marks = whole if clearly else part
        self.looks.append((self.step, float(marks.click.mean()), float(marks.box.mean())))
        if self.rests == 0:
            self.best = self.weights(1.0 if clearly else WAY)

    @property
    def rests(self) -> int:
        """Looks since the best one, which may be the first: that is at the model as it came."""
        return len(self.looks) - 1 - self._best_look if self.looks else 0

    @property
    def kept(self) -> int:
        """The step of the best look; 0: nothing that was learned served better."""
        return self.looks[self._best_look][0] if self.looks else 0

    @property
    def _best_look(self) -> int:
        return int(np.argmax([click + box for _, click, box in self.looks]))

    @property
    def looked_at(self) -> int:
        """The step at which the polygons held out were last looked at; -1: never."""
        return self.looks[-1][0] if self.looks else -1

    def save(self, folder: Path) -> None:
        """Write the checkpoint, at once."""
        state = {
            "learned": {k: v.detach() for k, v in self.learned.items()},
            "average": self.average,
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "looks": self.looks,
        }
        checkpoint.write(folder, self.course, state)

    def resume(self, folder: Path) -> None:
        """Go on from the checkpoint of a folder, if it has one.

        Raises:
            TrainingError: it is of another run.
        """
        saved = checkpoint.read(folder, self.course, self.device)
        if saved is None:
            return
        with torch.no_grad():
            for name, value in self.learned.items():
                value.copy_(saved["learned"][name])
        self.average, self.best = saved["average"], saved["best"]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.seconds = saved["step"], saved["seconds"]
        self.losses, self.looks = saved["losses"], [tuple(look) for look in saved["looks"]]


def share_gradients(parameters: list[Tensor], processes: int) -> None:
    """Replace the gradients of every process by their mean over all."""
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= processes
    start = 0
    for parameter in parameters:
        parameter.grad = flat[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
