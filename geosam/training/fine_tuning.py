"""Fine-tuning of a model on one's own polygons: bounded in time, resumable, stopped in time."""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import shapely
import torch
from torch import distributed, nn

from geosam.drafts import draft
from geosam.errors import OutputError, OutputExists, TrainingError
from geosam.protocol import Model, Progress
from geosam.training.card import Result, draw_curve, write_card
from geosam.training.course import SEED, WAY, Course, Run
from geosam.training.learners import Lessons, learner_of
from geosam.training.measure import Marks, measure
from geosam.training.pace import Limit
from geosam.training.places import Place, Source, Truth, hold_out_polygons, hold_out_share

STEPS_A_LOOK = 50  # steps from one look at the polygons held out to the next
PATIENCE = 6  # looks without a gain
LOOK_AT = 60  # polygons a look, at most
SAVE_EVERY_S = 60
BESIDE = (".md", ".png")  # model card and learning curve, beside the weights
FINISHING = "finishing"  # file in a run's folder once all that it shall write is at hand
MEASURED = 200  # polygons before and after, at most


def train(  # noqa: PLR0913  # each is a thing people set
    model: Model,
    pairs: Sequence[tuple[Source, Truth]],
    out: str | Path,
    *,
    val: Truth | None = None,
    val_share: float = 0.2,
    minutes: float = 10.0,
    steps: int | None = None,
    encoder: bool = False,
    bands: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Fine-tune a model on polygons; the same call again goes on after any interruption.

    The decoder and the prompt encoder learn, and with `encoder` all of nano. Blocks of the ground
    with a share of the polygons are held out: the weights that serve these best are kept, be it
    the model's own, and training stops when they gain no more.

    Beside `out` are written a model card (`.md`) and the learning curve (`.png`). Until then the
    run is kept in a folder `NAME.training`. Started by `torchrun`, the processes share the work.

    Args:
        model: to start from. It is left with the new weights, under its old id: load the file.
        pairs: rasters, each with its polygons: a file, a GeoDataFrame or a `PromptSet`.
        out: the `.safetensors` file to write, for `load_model`.
        val: polygons to hold out instead, on the only raster.
        val_share: about which share of the polygons to hold out.
        minutes: that training may take, the two measurements of the result aside.
        steps: that it may take instead; then a run can be repeated exactly.
        encoder: train the image encoder too.
        bands: one band, or three for red, green and blue; None: see `Stretch.of`.
        progress: called with (done, total) seconds, or steps if these are given.

    Returns:
        The result: where it is, its id, and the figures before and after.

    Raises:
        OutputExists: there is such a file already.
        TrainingError: there is too little to learn from, or the unfinished run is another one.
        PromptError, ProjectionError, RasterError, BandError: polygons or raster cannot be used.
    """
    out = Path(out)
    folder = _folder(out)
    learner = learner_of(model, encoder=encoder)
    places = _places(pairs, val, val_share)
    device = next(learner.network.parameters()).device
    rank, processes = _join(device)
    course = Course(model.id, encoder, _digest(places), tuple(bands or ()), processes)
    run = Run(learner, course)
    run.resume(folder)
    if rank == 0:  # which encodes what the others need
        lessons = learner.lessons(places, bands, SEED, None)
    _wait(processes)
    if rank > 0:
        lessons = learner.lessons(places, bands, SEED, None)
    examiner = _Examiner(model, learner.shown, places, bands, encoder)
    _study(
        run,
        lessons,
        examiner,
        folder,
        Limit(60 * minutes, steps, progress if rank == 0 else None),
        rank,
    )
    results = [_finish(run, examiner, out, folder) if rank == 0 else None]
    if processes > 1:
        distributed.broadcast_object_list(results)
        distributed.destroy_process_group()
    return cast(Result, results[0])


@dataclass(frozen=True, slots=True, eq=False)
class _Examiner:
    """Measures weights on the polygons held out.

    As long as the image encoder is the model's own, so are the features, and those that are stored
    beside the raster serve; with another encoder they are made anew each time.
    """

    model: Model
    network: nn.Module
    places: list[Place]
    bands: Sequence[int] | None
    encoder: bool

    def marks(self, weights: dict[str, torch.Tensor], most: int) -> Marks:
        self.network.load_state_dict(weights, strict=False)
        return self.marks_of_model(most)

    def marks_of_model(self, most: int) -> Marks:
        stores: list[Path | None] = [None] * len(self.places)
        if not self.encoder:
            return measure(self.model, self.places, stores, bands=self.bands, most=most)
        with tempfile.TemporaryDirectory() as folder:
            stores = [Path(folder) / f"{i}.zarr" for i in range(len(self.places))]
            return measure(self.model, self.places, stores, bands=self.bands, most=most)


def own_device(device: str) -> str:
    """Of the GPUs that `torchrun` shares out, this process's; else the device that was named."""
    number = os.environ.get("LOCAL_RANK")
    if number is None or device == "cpu" or not torch.cuda.is_available():
        return device
    return f"cuda:{number}"


def _folder(out: Path) -> Path:
    """The folder of an unfinished run, after a check that its result may be written."""
    if out.suffix != ".safetensors":
        raise OutputError(f"{out}: {out.suffix or 'no'} suffix (expected .safetensors).")
    folder = out.with_suffix(".training")
    ours = (folder / FINISHING).exists()  # of a run that was killed between the names
    for path in (out, *(out.with_suffix(suffix) for suffix in BESIDE if not ours)):
        if path.exists():
            raise OutputExists(f"{path}: exists (expected a new file). Name another output.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: {error.strerror} (expected a folder for the run). Make room, or name "
            "another output."
        ) from error
    return folder


def _places(
    pairs: Sequence[tuple[Source, Truth]], val: Truth | None, val_share: float
) -> list[Place]:
    if not pairs:
        raise TrainingError("Pairs: none (expected a raster with polygons). Name at least one.")
    if val is None:
        return hold_out_share(pairs, val_share, SEED)
    if len(pairs) > 1:
        raise TrainingError(
            f"Validation polygons: given with {len(pairs)} rasters (expected one raster). Give a "
            "share instead."
        )
    (raster, truth), *_ = pairs
    return hold_out_polygons(raster, truth, val)


def _digest(places: list[Place]) -> str:
    """The rasters and their polygons, in short."""
    digest = hashlib.sha256()
    for place in places:
        digest.update(place.fingerprint.encode())
        for polygons in (place.learned, place.held_out):
            digest.update(b"".join(shapely.to_wkb(polygons, byte_order=1)) + b"|")
    return digest.hexdigest()[:16]


def _join(device: torch.device) -> tuple[int, int]:
    """This process's number and how many there are, as `torchrun` started them."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return distributed.get_rank(), processes
    return 0, 1


def _wait(processes: int) -> None:
    if processes > 1:
        distributed.barrier()


def _study(
    run: Run, lessons: Lessons, examiner: _Examiner, folder: Path, limit: Limit, rank: int
) -> None:
    """Learn until the time is over or nothing more is gained."""
    processes = run.course.processes
    saved = time.monotonic()
    goes_on = True
    while goes_on:
        began = time.monotonic()
        due = run.step % STEPS_A_LOOK == 0 and run.looked_at != run.step
        if rank == 0 and due:
            run.note(*(examiner.marks(run.weights(way), LOOK_AT) for way in (WAY, 1.0)))
            run.seconds += time.monotonic() - began
        if rank == 0 and (due or time.monotonic() - saved > SAVE_EVERY_S):
            run.save(folder)
            saved = time.monotonic()
        share = torch.tensor([1.0 if run.rests >= PATIENCE else limit.share(run.step, run.seconds)])
        if processes > 1:
            share = share.to(run.device)
            distributed.broadcast(share, 0)
        goes_on = bool(share < 1)
        if goes_on:
            began = time.monotonic()
            run.learn(lessons[run.step * processes + rank], float(share))
            run.seconds += time.monotonic() - began
    if rank == 0 and run.looked_at != run.step:
        run.note(*(examiner.marks(run.weights(way), LOOK_AT) for way in (WAY, 1.0)))
        run.save(folder)


def _finish(run: Run, examiner: _Examiner, out: Path, folder: Path) -> Result:
    """Measure, and write weights, card and curve; the weights last, for they say it is done."""
    before = examiner.marks(run.original, MEASURED)
    examiner.network.load_state_dict(run.best, strict=False)
    card, curve = (out.with_suffix(suffix) for suffix in BESIDE)
    with draft(out) as weights, draft(card) as card_place, draft(curve) as curve_place:
        run.learner.save(weights)
        after = examiner.marks_of_model(MEASURED)
        digits = hashlib.sha256(weights.read_bytes()).hexdigest()[:8]
        result = Result(out, f"{out.stem}-{digits}", run.course.model, before, after, run.step,
                        run.kept, run.seconds, tuple(run.looks), tuple(run.losses),
                        tuple(examiner.places), run.course.encoder)  # fmt: skip
        write_card(result, card_place)
        draw_curve(result, curve_place)
        (folder / FINISHING).touch()
    shutil.rmtree(folder)
    return result
