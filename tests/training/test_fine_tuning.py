"""Fine-tuning: what is held out stays unseen, networks learn, a killed run goes on exactly."""

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from shapely import box

import geosam
from geosam.cli import main
from geosam.cli.shared import ModelChoice
from geosam.errors import OutputError, OutputExists, PromptError, TrainingError
from geosam.evaluation.measures import iou
from geosam.model import sam1_weights
from geosam.model.config import SamConfig
from geosam.model.prompt_encoder import Prompts
from geosam.model.runtime import SamModel
from geosam.model.sam import Sam
from geosam.model.sam1_runtime import Sam1Model
from geosam.model.sam1_weights import build_sam1
from geosam.protocol import FILL, TilePrompt
from geosam.training import course, fine_tuning, learners
from geosam.training.imagenet import load_imagenet
from geosam.training.learners import Sam1Learner, learner_of
from geosam.training.lessons import PlaceSampler, Views
from geosam.training.measure import Marks, gain, inner_points, innermost
from geosam.training.places import hold_out_polygons, hold_out_share
from tests.fakes import NORTH_UP, write_raster
from tests.seeded import TINY, official

SIDE = 420
SMALL = SamConfig(size=128, width=32, skip_channels=(8, 8), heads=2, depth=1, mlp_width=64)


def small_model():
    """A nano of 128 px tiles; its trunk knows ImageNet, its decoder nothing."""
    torch.manual_seed(0)
    network = Sam(SMALL)
    load_imagenet(network.image_encoder.trunk)
    return SamModel(network, "small-0")


def fields(folder: Path):
    """A noisy image with bright rectangles and ellipses on a lattice, and their polygons."""
    rng = np.random.default_rng(0)
    image = np.full((SIDE, SIDE, 3), (70, 80, 60), np.uint8)
    rows, cols = np.mgrid[:SIDE, :SIDE]
    shapes = []
    for top in range(20, SIDE - 40, 60):
        for left in range(20, SIDE - 40, 60):
            w, h = rng.integers(16, 36, 2)
            if rng.random() < 0.5:
                shape = box(left, top, left + w, top + h)
                inside = (cols >= left) & (cols < left + w) & (rows >= top) & (rows < top + h)
            else:
                shape = shapely.transform(
                    shapely.Point(0, 0).buffer(0.5), lambda p, s=(w, h), o=(left, top): p * s + o
                )
                inside = ((cols + 0.5 - left) / w * 2) ** 2 + ((rows + 0.5 - top) / h * 2) ** 2 < 1
            image[inside] = rng.integers(130, 230, 3)
            shapes.append(
                shapely.transform(shape, lambda xy: xy * (1, -1) + (NORTH_UP.c, NORTH_UP.f))
            )
    image = (image + rng.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)
    raster = write_raster(folder / "fields.tif", np.moveaxis(image, 2, 0))
    truth = folder / "fields.gpkg"
    geopandas.GeoDataFrame(geometry=shapes, crs=32633).to_file(truth)
    return raster, truth


def make_small(monkeypatch, objects=4):
    """Steps of few prompts, and few polygons a look."""
    for module, name, value in (
        (learners, "NANO_OBJECTS", objects), (learners, "TILES", 1),
        (fine_tuning, "LOOK_AT", 4), (fine_tuning, "MEASURED", 8),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def pair(tmp_path):
    return fields(tmp_path)


def test_held_out_ground_is_hidden_and_every_polygon_accounted_for(pair):
    _, truth = pair
    (place,) = hold_out_share([pair], 0.3, seed=1)
    total = len(geopandas.read_file(truth))
    assert len(place.learned) + len(place.held_out) + sum(place.left_out.values()) == total
    assert 0.2 < len(place.held_out) / total < 0.4
    assert not shapely.intersects(place.learned, place.hidden).any()
    middles = shapely.point_on_surface(place.held_out)
    assert shapely.intersects(middles, place.hidden).all()
    sampler = PlaceSampler.of([place], None, 128)
    fill, shown = np.array(FILL), 0
    for scene in sampler.scenes:
        assert set(scene.ids) <= set(range(1, len(place.learned) + 1))
        shown += (scene.pyramid[0] != fill).any(2).sum()
    hidden_px = shapely.area(shapely.intersection(place.hidden, box(0, 0, SIDE, SIDE)))
    windows = sum(scene.labels.size for scene in sampler.scenes)
    assert shown < windows  # something of the windows is filled, and only the hidden ground
    assert hidden_px > 0


def test_only_the_hidden_ground_is_filled(pair):
    raster, truth = pair
    frame = geopandas.read_file(truth)
    val = frame.iloc[[24]]
    (place,) = hold_out_polygons(raster, frame.drop(index=24), val)
    assert len(place.held_out) == 1
    assert place.hidden.equals(box(*place.held_out[0].bounds))
    filled = 0
    for scene in PlaceSampler.of([place], None, 128).scenes:
        filled += (scene.pyramid[0] == np.array(FILL)).all(2).sum()
        assert (scene.labels[(scene.pyramid[0] == np.array(FILL)).all(2)] == 0).all()
    assert filled >= shapely.area(place.hidden)


def test_an_object_is_seen_at_each_scale_that_clicks_are_decoded_at(pair):
    (place,) = hold_out_share([pair], 0.3, seed=1)
    views = Views(PlaceSampler.of([place], None, 128), seed=1, objects=4, model_size=128)
    for step, size, objects in ((0, 64, 4), (3, 128, 1)):
        batch, again = views[step], views[step]
        assert all(torch.equal(a, b) for a, b in zip(batch, again, strict=True))
        assert batch.images.shape == (3 * objects, 3, size, size)
        assert batch.targets.shape == (3 * objects, 2, size // 4, size // 4)
        clicks, targets, weights = batch.clicks[:, 1], batch.targets[:, 1], batch.weights[:, 1]
        col, row = (clicks / 4 + 0.125).long().unbind(1)
        on = targets[torch.arange(len(targets)), row, col]
        assert (on[weights > 0] > 0).all()
        reach = 64 / 32 if size == 64 else 128 / 4
        assert (abs(clicks + 0.5 - size / 2) <= reach + 1e-3).all()
    areas = []
    for step in (3, 7, 11, 15, 19, 23):  # whole crops, in which no object of this place is cut
        batch = views[step]
        if batch.weights.all():
            areas.append(batch.targets[:, 1].sum((1, 2)).numpy())
    assert len(areas) > 2
    ratios = np.array(areas)[:, :-1] / np.array(areas)[:, 1:]
    assert np.median(ratios) == pytest.approx(4, rel=0.1)


def test_polygons_in_another_crs_mean_the_same_ground(pair, tmp_path):
    raster, truth = pair
    degrees = tmp_path / "degrees.gpkg"
    geopandas.read_file(truth).to_crs(4326).to_file(degrees)
    (here,), (there,) = (hold_out_share([(raster, t)], 0.3, seed=1) for t in (truth, degrees))
    for a, b in zip(here.learned, there.learned, strict=True):
        assert iou(a, b) > 0.99


def test_what_cannot_be_learned_from_is_refused(pair, tmp_path):
    raster, truth = pair
    frame = geopandas.read_file(truth)
    away = frame.translate(1e6, 0)
    with pytest.raises(TrainingError, match=r"36 off the raster.*Is it the right pair"):
        hold_out_share([(raster, geopandas.GeoDataFrame(geometry=away))], 0.2, seed=1)
    with pytest.raises(TrainingError, match=r"in one block.*name a validation file"):
        hold_out_share([(raster, frame.iloc[:2])], 0.2, seed=1)
    points = geopandas.GeoDataFrame(geometry=frame.centroid)
    with pytest.raises(TrainingError, match=r"points.*draw the object's outline"):
        hold_out_share([(raster, points)], 0.2, seed=1)
    bow_tie = shapely.Polygon([(0, 0), (9, 9), (9, 0), (0, 9)])
    with pytest.raises(PromptError, match="invalid polygon"):
        hold_out_share([(raster, geopandas.GeoDataFrame(geometry=[bow_tie], crs=32633))], 0.2, 1)
    with pytest.raises(TrainingError, match="no polygon is left to learn from"):
        hold_out_polygons(raster, frame, frame)
    with pytest.raises(TrainingError, match="between 0 and 1"):
        hold_out_share([pair], 1.5, seed=1)
    model = small_model()
    taken = tmp_path / "a.safetensors"
    taken.write_bytes(b"mine")
    with pytest.raises(OutputExists):
        geosam.train(model, [pair], taken)
    assert taken.read_bytes() == b"mine"
    with pytest.raises(OutputError, match=r"expected .safetensors"):
        geosam.train(model, [pair], tmp_path / "a.pt")


def test_the_innermost_point_iou_and_gain_by_hand():
    hooked = shapely.Polygon([(0, 0), (30, 0), (30, 10), (10, 10), (10, 12), (0, 12)])
    (x, y), *_ = innermost(np.array([hooked], object))
    assert hooked.exterior.distance(shapely.Point(x, y)) > 5.4
    assert iou(box(0, 0, 2, 2), box(1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert iou(None, hooked) == 0
    assert gain(np.zeros(9), np.full(9, 0.25)) == (0.25, 0.25, 0.25)


def test_clicks_to_measure_by_lie_deep_inside_and_are_always_the_same():
    hooked = shapely.Polygon([(0, 0), (30, 0), (30, 10), (10, 10), (10, 12), (0, 12)])
    polygons = np.array([hooked, box(5, 5, 9, 9)], object)
    points = inner_points(polygons)
    assert points.shape == (2, 3, 2)
    np.testing.assert_array_equal(points[:, 0], innermost(polygons))
    np.testing.assert_array_equal(points, inner_points(polygons))
    for polygon, own in zip(polygons, points, strict=True):
        depths = polygon.exterior.distance(shapely.points(own))
        assert (depths > 0.49 * depths[0]).all()
        assert len(np.unique(own, axis=0)) == 3
        assert shapely.contains_xy(polygon, own).all()


def test_weights_that_serve_worse_than_those_they_came_from_are_not_kept():
    run = course.Run(learner_of(small_model(), encoder=False), course.Course("", False, "", (), 1))
    original = {name: value.clone() for name, value in run.average.items()}
    for step, click, box_iou in ((0, 0.5, 0.8), (2, 0.4, 0.8), (4, 0.3, 0.9), (6, 0.5, 0.8)):
        run.step = step
        run.average = {name: value + step for name, value in original.items()}
        run.note(*[Marks(np.array([click]), np.array([box_iou]))] * 2)
    assert (run.kept, run.rests) == (0, 3)
    assert all(torch.equal(value, original[name]) for name, value in run.best.items())
    run.step = 8
    run.note(*[Marks(np.array([0.5]), np.array([0.81]))] * 2)
    assert (run.kept, run.rests) == (8, 0)
    assert all(torch.allclose(value, original[name] + 3) for name, value in run.best.items())


def test_all_that_was_learned_is_taken_only_where_it_clearly_serves_better():
    run = course.Run(learner_of(small_model(), encoder=False), course.Course("", False, "", (), 1))
    original = {name: value.clone() for name, value in run.average.items()}
    run.average = {name: value + 6 for name, value in original.items()}
    part, unsure, sure = (np.array(v) for v in ([0.5, 0.6, 0.7], [0.8, 0.55, 0.7], [0.6, 0.7, 0.8]))
    for step, whole, way in ((1, unsure, 0.5), (2, sure, 1.0)):
        run.step = step
        run.note(Marks(part + 0.01 * step, part), Marks(whole + 0.01 * step, part))
        assert run.kept == step
        for name, value in run.best.items():
            torch.testing.assert_close(value, original[name] + 6 * way)
    assert run.looks[-1][1] == pytest.approx(0.72)


def test_a_run_that_gains_nothing_says_so_and_gives_the_model_as_it_came(
    pair, tmp_path, monkeypatch
):
    monkeypatch.setattr(course, "RATE", 0.0)
    make_small(monkeypatch, objects=2)
    monkeypatch.setattr(ModelChoice, "load", lambda _: small_model())
    out = tmp_path / "same.safetensors"
    words = ["train", "--raster", pair[0], "--truth", pair[1], "-o", out, "--steps", 1]
    result = CliRunner().invoke(main, [*map(str, words)])
    assert result.exit_code == 0, result.output
    assert "No gain found: same.safetensors holds the weights of small-0" in result.stderr
    assert "| Weights kept | those of `small-0`: no gain |" in out.with_suffix(".md").read_text()
    old = small_model().network.half().float().state_dict()
    for name, value in load_file(out).items():
        assert torch.equal(value.float(), old[name])


def test_a_small_network_learns_shapes_it_has_not_seen(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(course, "RATE", 3e-3)  # its decoder starts from nothing
    make_small(monkeypatch, objects=6)
    result = geosam.train(small_model(), [pair], tmp_path / "shapes.safetensors", steps=40)
    assert np.mean(result.losses[-10:]) < 0.9 * np.mean(result.losses[:10])
    assert result.after.mean > result.before.mean + 0.15
    encoder = load_file(result.path)["image_encoder.trunk.stem.weight"]
    assert torch.equal(encoder, small_model().network.image_encoder.trunk.stem.weight.half())
    digits = hashlib.sha256(result.path.read_bytes()).hexdigest()[:8]
    assert result.id == f"shapes-{digits}"
    card = result.path.with_suffix(".md").read_text()
    assert result.id in card and "small-0" in card and "| 1 click |" in card
    assert result.path.with_suffix(".png").stat().st_size > 1000
    assert not (tmp_path / "shapes.training").exists()


def learn_slowly(folder, kill_at):
    """What the process that is killed does: it dies by SIGKILL after a step."""
    torch.set_num_threads(1)
    fine_tuning.STEPS_A_LOOK, fine_tuning.LOOK_AT, fine_tuning.MEASURED = 2, 4, 4
    learners.NANO_OBJECTS = 4
    learn = course.Run.learn

    def then_die(run, batch, share):
        learn(run, batch, share)
        if run.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    course.Run.learn = then_die
    pair = (folder / "fields.tif", folder / "fields.gpkg")
    geosam.train(small_model(), [pair], folder / "out.safetensors", steps=5)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_run_ends_in_the_very_weights_of_an_undisturbed_one(tmp_path):
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    files = []
    for name, kills in (("whole", [0]), ("killed", [3, 0])):
        folder = tmp_path / name
        folder.mkdir()
        fields(folder)
        for kill_at in kills:
            process = processes.Process(target=learn_slowly, args=(folder, kill_at))
            process.start()
            process.join()
            assert process.exitcode == (-signal.SIGKILL if kill_at else 0)
            assert (folder / "out.training/checkpoint.pt").exists() == bool(kill_at)
        files.append((folder / "out.safetensors").read_bytes())
    assert files[0] == files[1]


def test_another_run_s_checkpoint_is_refused(pair, tmp_path, monkeypatch):
    make_small(monkeypatch)
    raster, truth = pair

    def stop(*_):
        raise KeyboardInterrupt

    out = tmp_path / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        geosam.train(small_model(), [pair], out, progress=stop)
    fewer = geopandas.read_file(truth).iloc[:-1]
    with pytest.raises(TrainingError, match=r"other places .*Remove .*a\.training"):
        geosam.train(small_model(), [(raster, fewer)], out)


def tiny_sam():
    return Sam1Model(build_sam1(official(), Path("tiny.pth")), "tiny-0")


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(sam1_weights.CONFIGS, "tiny SAM", TINY)


def test_sam_decodes_alike_when_it_learns_and_when_it_is_used(tiny):
    model = tiny_sam()
    image = np.random.default_rng(0).integers(0, 255, (1, 3, 256, 256), np.uint8)
    features = model.encode(image)
    points = np.float32([[[50, 60]], [[200, 90]]])
    asked = [TilePrompt(own, np.ones(1, np.int64)) for own in points]
    logits, scores = model.decode(features[0], asked, multimask=True)
    prompts = Prompts(torch.from_numpy(points), torch.ones(2, 1), None, None)
    own_logits, own_scores = Sam1Learner(model)._decode(
        torch.from_numpy(features).float(), prompts, multimask=True
    )
    np.testing.assert_allclose(own_logits.detach(), logits, atol=1e-4)
    np.testing.assert_allclose(own_scores.detach().clip(0, 1), scores, atol=1e-5)


def test_sam_s_decoder_learns_on_stored_tiles(tiny, pair, tmp_path, monkeypatch):
    make_small(monkeypatch)
    model = tiny_sam()
    result = geosam.train(model, [pair], tmp_path / "mine.safetensors", steps=3)
    new, old = load_file(result.path), official()
    assert new.keys() == old.keys()
    changed = {key for key in new if not torch.equal(new[key], old[key])}
    assert changed
    assert all(key.startswith(("mask_decoder.", "prompt_encoder.")) for key in changed)
    loaded = geosam.load_model(result.path)
    assert loaded.id == result.id
    polygons = geosam.segment(loaded, pair[0], geosam.PromptSet.of(points=[(516_126, 5_160_930)]))
    assert len(polygons) == 1
    with pytest.raises(TrainingError, match="encoder of a vision transformer"):
        geosam.train(tiny_sam(), [pair], tmp_path / "b.safetensors", encoder=True)


def test_the_command_makes_a_model_that_segments(pair, tmp_path, monkeypatch):
    make_small(monkeypatch, objects=2)
    raster, truth = pair
    out = tmp_path / "mine.safetensors"
    words = ["train", "--raster", raster, "--truth", truth, "-o", out, "--steps", 1]
    result = CliRunner().invoke(main, [*map(str, words)])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}\n"
    assert "1 click  IoU" in result.stderr
    again = CliRunner().invoke(main, [*map(str, words)])
    assert again.exit_code == 1
    assert "Name another output" in again.stderr
    words = ["segment", raster, "--point", 516_126, 5_160_930, "--model", out]
    words += ["-o", tmp_path / "one.gpkg"]
    assert CliRunner().invoke(main, [*map(str, words)]).exit_code == 0
    assert len(geopandas.read_file(tmp_path / "one.gpkg")) == 1
    neither = CliRunner().invoke(main, ["train", "--raster", str(raster), "-o", str(out)])
    assert neither.exit_code == 2


@pytest.mark.slow
def test_two_processes_share_the_work(pair, tmp_path):
    script = tmp_path / "work.py"
    script.write_text(
        "import sys; from pathlib import Path\n"
        "import geosam, torch; torch.set_num_threads(1)\n"
        "from geosam.training import fine_tuning, learners\n"
        "from tests.training.test_fine_tuning import small_model\n"
        "fine_tuning.LOOK_AT = 4; learners.NANO_OBJECTS = 4\n"
        "raster, truth, out = sys.argv[1:]\n"
        "made = geosam.train(small_model(), [(raster, truth)], out, steps=3)\n"
        "print(made.id, made.steps)\n"
    )
    out = tmp_path / "both.safetensors"
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", script]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*map(str, words), *map(str, pair), str(out)], cwd=root, check=False, text=True,
        capture_output=True, env=os.environ | {"PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert lines[0] == lines[1] != ""
    assert out.exists()
