"""One training step: rounds of prompts, each correcting the last; the losses."""

from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from geosam.model.image_encoder import Features
from geosam.model.prompt_encoder import Prompts
from geosam.model.sam import Sam
from geosam.protocol import MASK_LOGIT
from geosam.training.batches import Batch

FOCAL_GAMMA = 1.0
EDGE_WEIGHT = 2.0
SCORE_WEIGHT = 2.0
MASK_SHARE = 0.5  # of the corrections that come with the mask they correct
ROUGH_SHARE = 0.15  # of the corrections of boxes that are a rough outline instead
LEARNT_IN_FULL = 3  # rounds
STEADY_WEIGHT = 1.0
CHOICE_WEIGHT = 3.0
CHOICE_SPREAD = 0.05  # of scores: how much better one must be to be nearly always chosen


class Asked(NamedTuple):
    """P prompts of one kind, in the order of their images, and what they mean; see `Batch`."""

    image: Tensor  # (P,) number
    targets: Tensor
    clicks: Tensor
    boxes: Tensor
    weights: Tensor
    origins: Tensor

    @classmethod
    def of(cls, batch: Batch, offset: int) -> Self:
        """Every other prompt of a batch."""
        count = batch.clicks.shape[1]
        images = torch.arange(len(batch.images), device=batch.clicks.device)
        image = images.repeat_interleave(count)[offset::2]
        targets, clicks, boxes, weights = (p.flatten(0, 1)[offset::2] for p in batch[1:5])
        return cls(image, targets, clicks, boxes, weights, batch.origins[image])

    def first(self, count: int) -> "Asked":
        """The first prompts."""
        return Asked(*(part[:count] for part in self))


class Decoder(Protocol):
    """A decoder on a batch's images, which it knows."""

    def __call__(
        self, image: Tensor, prompts: Prompts, *, multimask: bool, origin: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits (P, M, s/4, s/4) and scores (P, M) of prompts on the images (P,) by number."""
        ...


def batch_loss(
    model: Sam,
    batch: Batch,
    rounds: int,
    *,
    ambiguous: bool = True,
    shift: tuple[int, int] | None = None,
    scales: int = 1,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Encode the images of a batch, and `prompts_loss` on them."""
    features = model.encode(batch.images.float())

    def decode(
        image: Tensor, prompts: Prompts, *, multimask: bool, origin: Tensor
    ) -> tuple[Tensor, Tensor]:
        own = Features(*(part.index_select(0, image) for part in features))
        return model.decode(own, prompts, multimask=multimask, origin=origin)

    return prompts_loss(decode, batch, rounds, ambiguous=ambiguous, shift=shift, scales=scales)


def prompts_loss(
    decode: Decoder,
    batch: Batch,
    rounds: int,
    *,
    ambiguous: bool = True,
    shift: tuple[int, int] | None = None,
    scales: int = 1,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean loss of all prompts over the rounds, and the mean IoU of each round to log.

    Even prompts start from a box, odd ones from a click; each further round adds a click at the
    largest error, as in interactive use (Kirillov et al. 2023, app. A), and in half of the draws
    the previous mask: those who correct by clicks alone have none to give. Of more than three
    rounds only the first and the last are learnt from, because the others cost as much.

    Args:
        decode: the decoder.
        batch: images and objects.
        rounds: of prompts.
        ambiguous: see `mask_loss`.
        shift: cells right and down by which the latter half of the crops is the former one moved,
            if it is. Then the first round is learnt on both, and that they answer alike; the
            others on the former half alone.
        scales: crops that follow each other and show one click at different scales. If several,
            see `choice_loss` for the first click.
    """
    losses, log = [], {}
    for name, offset in (("box", 0), ("click", 1)):
        asked = Asked.of(batch, offset)
        points = asked.clicks[:, None] if name == "click" else asked.clicks[:, None][:, :0]
        labels = torch.ones(points.shape[:2], device=points.device)
        masks = None
        for number in range(rounds):
            given: Tensor | None = masks if torch.rand(()) < MASK_SHARE else None
            prompts = Prompts(points, labels, asked.boxes if name == "box" else None, given)
            if name == "box" and masks is not None and torch.rand(()) < ROUGH_SHARE:
                prompts = Prompts(points[:, :0], labels[:, :0], asked.boxes, rough(masks))
            multimask = name == "click" and number == 0
            logits, scores = decode(asked.image, prompts, multimask=multimask, origin=asked.origins)
            logits, scores = logits.float(), scores.float()
            if multimask and scales > 1:
                loss, best, iou = choice_loss(logits, scores, asked.targets, asked.weights, scales)
            else:
                loss, best, iou = mask_loss(
                    logits, scores, asked.targets, asked.weights, ambiguous=ambiguous
                )
            log[f"{name}{number}"] = weighted(iou, asked.weights)
            if shift is not None and number == 0:
                apart = weighted(unsteadiness(logits, scores, *shift), asked.weights.chunk(2)[0])
                loss = loss + STEADY_WEIGHT * apart
                log[f"{name}_apart"] = apart.detach()
                half = len(best) // 2
                asked, best = asked.first(half), best[:half]
                points, labels = points[:half], labels[:half]
            if rounds <= LEARNT_IN_FULL or number in (0, rounds - 1):
                losses.append(loss)
            masks = best.detach()
            point, label = next_click(masks, asked.targets)
            points = torch.cat([points, point[:, None]], dim=1)  # (P, N+1, 2)
            labels = torch.cat([labels, label[:, None]], dim=1)  # (P, N+1)
    return torch.stack(losses).mean(), log


def weighted(values: Tensor, weights: Tensor) -> Tensor:
    """The mean () of values (P,) that count by their weights (P,)."""
    return (values * weights).sum() / weights.sum().clamp(min=1)


def unsteadiness(logits: Tensor, scores: Tensor, right: int, down: int) -> Tensor:
    """How far the answers on crops and on the same crops moved are apart.

    Args:
        logits: (2P, M, h, w), those of the moved crops last.
        scores: (2P, M).
        right: cells by which the latter are moved.
        down: likewise.

    Returns:
        (P,) mean over the M masks: one less their soft IoU where both crops see the ground, and
        the difference of their scores, squared and weighted as its error is.
    """
    still, moved = logits.sigmoid().chunk(2)
    height, width = still.shape[-2:]
    still = still[..., down:, right:]
    moved = moved[..., : height - down, : width - right]
    either = torch.maximum(still, moved).sum((2, 3))  # (P, M)
    apart = (still - moved).abs().sum((2, 3)) / (either + 1)
    one, other = scores.chunk(2)
    return (apart + SCORE_WEIGHT * (one - other).square()).mean(1)


def rough(masks: Tensor) -> Tensor:
    """The outline that a person might draw of masks (P, h, w): displaced, and sure of itself."""
    right, down = torch.randint(-2, 3, (2,)).tolist()
    return torch.where(masks > 0, MASK_LOGIT, -MASK_LOGIT).roll((down, right), (1, 2))


def mask_loss(
    logits: Tensor, scores: Tensor, targets: Tensor, weights: Tensor, *, ambiguous: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised focal and dice loss of M masks, and the error of their scores.

    Args:
        logits: (P, M, h, w).
        scores: (P, M) predicted IoUs.
        targets: (P, h, w) share of each cell that the object covers.
        weights: (P,) how much a target counts.
        ambiguous: whether a prompt may mean other objects than its target. Then the best mask
            alone answers for that, and others stay free to show other readings; else all do.

    Returns:
        loss (), the best mask's logits (P, h, w) and its IoU (P,).
    """
    each, iou = errors(logits, targets)
    least, best = each.min(1)  # (P,)
    value = each.mean(1)
    if ambiguous:
        value = least + 0.02 * value  # no mask of the three is left without a teacher
    value = value + SCORE_WEIGHT * (scores - iou).square().mean(1)
    rows = torch.arange(len(best), device=best.device)
    return weighted(value, weights), logits[rows, best], iou[rows, best]


def choice_loss(
    logits: Tensor, scores: Tensor, targets: Tensor, weights: Tensor, scales: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of what a lone click would be answered with, of its masks at several scales.

    At use the mask with the best score is the answer, unless the edge cuts it. So scores learn to
    order the masks of all scales, by the IoU that is expected if one is drawn by them, and masks
    are taught as far as they would be drawn; half of it, as of an ambiguous prompt, the best of
    each scale, so that there stays something to choose from.

    Args:
        logits: (P, M, h, w); `scales` prompts in a row are one click.
        scores: (P, M).
        targets: (P, h, w).
        weights: (P,); a click counts that shows its object at each scale.
        scales: S.

    Returns:
        as `mask_loss`.
    """
    each, iou = errors(logits, targets)
    found = logits.detach() > 0
    edges = (found[..., 0, :], found[..., -1, :], found[..., 0], found[..., -1])
    is_cut = torch.stack([edge.any(2) for edge in edges]).any(0)  # (P, M)

    def of_clicks(values: Tensor) -> Tensor:
        return values.reshape(-1, scales * values.shape[1])  # (P / S, S * M)

    chances = F.softmax(of_clicks(scores - 10.0 * is_cut) / CHOICE_SPREAD, dim=1)
    expected = (chances * of_clicks(iou)).sum(1)
    taught = (chances.detach() * of_clicks(each)).sum(1)
    least, best = each.min(1)
    value = 0.5 * (least + 0.02 * each.mean(1)) + SCORE_WEIGHT * (scores - iou).square().mean(1)
    loss = weighted(value, weights) + weighted(
        0.5 * taught + CHOICE_WEIGHT * (1 - expected), weights.reshape(-1, scales).amin(1)
    )
    rows = torch.arange(len(best), device=best.device)
    return loss, logits[rows, best], iou[rows, best]


def errors(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised focal and dice loss of masks (P, M, h, w), and their IoU: (P, M) each."""
    truth = targets[:, None].expand_as(logits)  # (P, M, h, w)
    edge = (targets - F.avg_pool2d(targets, 5, 1, 2)).abs()[:, None]  # (P, 1, h, w)
    probability = logits.sigmoid()
    focus = (probability - truth).abs().detach() ** FOCAL_GAMMA * (1 + EDGE_WEIGHT * edge)
    cross = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    focal = (focus * cross).sum((2, 3)) / (focus.sum((2, 3)) + 1)  # (P, M)
    overlap = (probability * truth).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / ((probability + truth).sum((2, 3)) + 1)  # (P, M)
    with torch.no_grad():
        hit, actual = logits > 0, truth > 0.5
        both = (hit & actual).sum((2, 3)).float()
        iou = both / (hit | actual).sum((2, 3)).clamp(min=1)  # (P, M)
    return focal + dice, iou


@torch.no_grad()
def next_click(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """A click in the middle of the largest error: px (P, 2) and label (P,)."""
    truth = targets > 0.5
    error = (logits > 0) != truth  # (P, h, w)
    coarse = error[:, None].float()  # (P, 1, h, w)
    depth = torch.zeros_like(coarse)
    for _ in range(4):  # the share of errors in ever larger neighbourhoods
        coarse = F.avg_pool2d(coarse, 2)
        depth += F.interpolate(coarse, depth.shape[-2:], mode="bilinear")
    depth = depth[:, 0] * error + 0.05 * torch.rand(error.shape, device=error.device)  # (P, h, w)
    flat = depth.flatten(1).argmax(1)  # (P,)
    width = logits.shape[-1]
    cell = torch.stack([flat % width, flat // width], dim=1).float()  # (P, 2)
    label = truth.flatten(1).gather(1, flat[:, None])[:, 0].float()
    return cell * 4 + 1.5, label
