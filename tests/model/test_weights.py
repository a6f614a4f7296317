"""Weights in: sound ones load, others are refused by name."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from geosam import load_model
from geosam.errors import ModelError, WeightsError
from geosam.model import MODELS
from geosam.model.config import NANO
from geosam.model.sam import Sam
from geosam.model.weights import save_weights
from geosam.protocol import TilePrompt


@pytest.fixture
def weights():
    return load_file(MODELS["nano"])


def test_the_embedded_weights_are_at_most_10_mb():
    assert MODELS["nano"].stat().st_size <= 10_000_000


@pytest.mark.parametrize("grey", [115, 200])
@pytest.mark.parametrize("noise", [0, 8])  # a drawing has none, a sensor has some
def test_nano_outlines_a_plain_square(grey, noise):
    image = np.full((1, 3, 512, 512), 90, np.uint8)
    image[0, :, 180:300, 200:330] = grey
    image += np.random.default_rng(0).integers(0, noise + 1, image.shape, np.uint8)
    model = load_model("nano")
    features = model.encode(image)[0]
    truth = np.zeros((128, 128), bool)
    truth[45:75, 50:83] = True
    box = TilePrompt(
        np.zeros((0, 2), np.float32),
        np.zeros(0, np.int64),
        np.array([199.5, 179.5, 329.5, 299.5], np.float32),
    )
    logits, scores = model.decode(features, [box], multimask=False)
    found = logits[0, 0] > 0
    assert (found & truth).sum() / (found | truth).sum() > 0.9
    assert scores[0, 0] > 0.8


def test_weights_go_out_and_come_back(tmp_path):
    torch.manual_seed(0)
    network = Sam(NANO)
    save_weights(network, tmp_path / "own.safetensors")
    model = load_model(tmp_path / "own.safetensors")
    name, digits = model.id.rsplit("-", 1)
    assert name == "own"
    assert len(digits) == 8
    for key, value in model.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[key].half().float())


def test_the_id_tells_weights_apart(tmp_path, weights):
    save_file(weights, tmp_path / "a.safetensors")
    weights["mask_decoder.iou_token"] += 1
    save_file(weights, tmp_path / "b.safetensors")
    ids = {load_model(tmp_path / f"{name}.safetensors").id.split("-")[1] for name in "ab"}
    assert len(ids) == 2


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ModelError, match=r"'vit_x'.*nano"):
        load_model("vit_x")


def test_damaged_or_foreign_weights_are_refused(tmp_path, weights):
    path = tmp_path / "w.safetensors"
    path.write_bytes(MODELS["nano"].read_bytes()[:100_000])
    with pytest.raises(WeightsError, match="expected a safetensors file"):
        load_model(path)
    torch.save(weights, path)  # a pickle
    with pytest.raises(WeightsError, match="expected a safetensors file"):
        load_model(path)
    lacking = {k: v for k, v in weights.items() if k != "mask_decoder.iou_token"}
    save_file(lacking | {"other": torch.zeros(2)}, path)
    with pytest.raises(
        WeightsError, match=r"has unknown other; lacks mask_decoder.iou_token; 2 dif"
    ):
        load_model(path)
    save_file(weights | {"mask_decoder.iou_token": torch.zeros(1, 64)}, path)
    with pytest.raises(WeightsError, match=r"\(1, 64\), not \(1, 128\)"):
        load_model(path)
    save_file(weights | {"mask_decoder.iou_token": torch.full((1, 128), torch.nan)}, path)
    with pytest.raises(WeightsError, match=r"NaN or infinity in mask_decoder\.iou_token"):
        load_model(path)


def test_a_model_travels_as_the_call_that_loads_it(tmp_path, weights, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file(weights, "own.safetensors")
    model = load_model("own.safetensors")
    sent = pickle.dumps(model)
    assert len(sent) < 1000
    assert model.load.keywords["device"] == "auto"  # for the one who loads it to decide
    monkeypatch.chdir("/")
    assert pickle.loads(sent).id == model.id
    weights[max(weights)] += 1
    save_file(weights, tmp_path / "own.safetensors")
    with pytest.raises(WeightsError, match=rf"own-.*: other weights \(expected {model.id}\)"):
        pickle.loads(sent)
