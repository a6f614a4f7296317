"""What differs between networks when they learn: their batches, their loss, their file."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from geosam.decode import CLICK_SCALES
from geosam.errors import TrainingError
from geosam.model.config import VitConfig
from geosam.model.prompt_encoder import Prompts
from geosam.model.published import save_published
from geosam.model.runtime import SamModel
from geosam.model.sam import Sam
from geosam.model.sam1 import Sam1
from geosam.model.sam1_runtime import Sam1Model
from geosam.model.sam1_weights import meta_names
from geosam.model.weights import save_weights
from geosam.protocol import Model, Progress
from geosam.scene import Scene as Encoded
from geosam.training.batches import Batch
from geosam.training.lessons import PlaceSampler, StoredTiles, Views
from geosam.training.places import Place
from geosam.training.steps import batch_loss, prompts_loss

NANO_OBJECTS = 12  # a step
TILES, TILE_PROMPTS = 2, 6


class Lessons(Protocol):
    """Batches by number."""

    def __getitem__(self, step: int) -> Batch:
        """The same batch whenever it is asked for."""
        ...


class Learner(Protocol):
    """A network that learns.

    Attributes:
        network: the copy that changes.
        shown: the network of the model itself, with which others work meanwhile.
    """

    @property
    def network(self) -> nn.Module: ...  # noqa: D102  # described above

    @property
    def shown(self) -> nn.Module: ...  # noqa: D102

    def lessons(
        self,
        places: Sequence[Place],
        bands: Sequence[int] | None,
        seed: int,
        progress: Progress | None,
    ) -> Lessons:
        """What there is to learn at places."""
        ...

    def loss(self, batch: Batch, rounds: int) -> Tensor:
        """Mean loss () of a batch, whose objects are what every prompt here means."""
        ...

    def save(self, path: Path) -> None:
        """Write the model to a file for `load_model`; it then is what the file says."""
        ...


class NanoLearner:
    """nano, on crops that are made and encoded anew each step."""

    def __init__(self, model: SamModel) -> None:
        self.shown: Sam = model.network
        self.network: Sam = copy.deepcopy(model.network)
        self.size = model.size

    def lessons(
        self,
        places: Sequence[Place],
        bands: Sequence[int] | None,
        seed: int,
        progress: Progress | None,
    ) -> Lessons:
        """Crops of the places."""
        del progress  # reading takes no time worth showing
        sampler = PlaceSampler.of(places, bands, self.size)
        if not sampler.scenes:
            raise TrainingError(
                "Truth: no polygon is large enough at the scale at which nano would see it "
                "(expected polygons of like sizes). Train on the large and the small ones apart."
            )
        return Views(sampler, seed, NANO_OBJECTS, self.size)

    def loss(self, batch: Batch, rounds: int) -> Tensor:
        """Mean loss () of a batch of images."""
        images = batch.images.contiguous(memory_format=torch.channels_last)
        own = batch._replace(images=images)
        scales = len(CLICK_SCALES)
        return batch_loss(self.network, own, rounds, ambiguous=False, scales=scales)[0]

    def save(self, path: Path) -> None:
        """Write it in half precision."""
        self.shown.half().float()
        save_weights(self.shown, path)


class Sam1Learner:
    """SAM with a vision transformer, whose decoder learns on tiles that are encoded once."""

    def __init__(self, model: Sam1Model) -> None:
        self.model = model
        self.shown: Sam1 = model.network
        self.network: Sam1 = copy.deepcopy(model.network)

    def lessons(
        self,
        places: Sequence[Place],
        bands: Sequence[int] | None,
        seed: int,
        progress: Progress | None,
    ) -> Lessons:
        """Tiles of the places, encoded if they are not yet."""
        encoded = [(Encoded.open(self.model, p.raster, bands=bands), p) for p in places]
        return StoredTiles.of(
            encoded, seed=seed, images=TILES, prompts=TILE_PROMPTS, progress=progress
        )

    def loss(self, batch: Batch, rounds: int) -> Tensor:
        """Mean loss () of a batch of embeddings."""
        embeddings = batch.images.float()  # (B, C, S/16, S/16)

        def decode(
            image: Tensor, prompts: Prompts, *, multimask: bool, origin: Tensor
        ) -> tuple[Tensor, Tensor]:
            del origin  # a tile is the whole image
            results = [
                self._decode(embeddings[number, None], _some(prompts, image == number), multimask)
                for number in range(len(embeddings))
                if bool((image == number).any())
            ]
            logits, scores = (torch.cat(part) for part in zip(*results, strict=True))
            return logits, scores

        return prompts_loss(decode, batch, rounds, ambiguous=False)[0]

    def save(self, path: Path) -> None:
        """Write it in single precision under Meta's names."""
        save_published(self.shown, meta_names, path)

    def _decode(
        self, embedding: Tensor, prompts: Prompts, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """Prompts on one image, (1, C, S/16, S/16)."""
        network, decoder = self.network, self.network.mask_decoder
        looked = network.look(embedding, network.prepare(embedding, self.model.code), prompts)
        logits = decoder.logits(looked.tokens, looked.cells, multimask=multimask)
        return logits, decoder.scores(looked.tokens, multimask=multimask)


def learner_of(model: Model, *, encoder: bool) -> Learner:
    """The learner for a model.

    Raises:
        TrainingError: it cannot be trained, or its encoder cannot.
    """
    if model.precision != "fp32":
        raise TrainingError(
            f"{model.id}: loaded in {model.precision} (expected fp32, from which training chooses "
            "its own). Leave the precision out."
        )
    if isinstance(model, SamModel):
        return NanoLearner(model)
    if not (isinstance(model, Sam1Model) and isinstance(model.network.config.encoder, VitConfig)):
        raise TrainingError(
            f"{model.id}: models of this kind are not trained here (expected nano or SAM ViT-B, "
            "ViT-L or ViT-H). Train one of these."
        )
    if encoder:
        raise TrainingError(
            f"{model.id}: the encoder of a vision transformer is not trained here (expected nano). "
            "Train its decoder alone."
        )
    return Sam1Learner(model)


def _some(prompts: Prompts, rows: Tensor) -> Prompts:
    points, labels, boxes, masks = prompts
    return Prompts(
        points[rows],
        labels[rows],
        None if boxes is None else boxes[rows],
        None if masks is None else masks[rows],
    )
