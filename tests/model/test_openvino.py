"""Encoders in OpenVINO give what they give in torch, start from the cache, and fail in the open."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from geosam import load_model
from geosam.cli import main
from geosam.errors import ModelError
from geosam.model import mobile_weights, openvino_encoder, sam1_weights, sam2_weights
from geosam.model.engine import CPU, Engine
from geosam.model.mobile_weights import build_mobile_sam
from geosam.model.openvino_encoder import OpenVinoEncoder
from geosam.model.sam1_runtime import Sam1Model
from geosam.model.sam1_weights import build_sam1
from geosam.model.sam2_runtime import Sam2Model
from geosam.model.sam2_weights import build_sam2
from geosam.protocol import FILL
from tests.references import image
from tests.seeded import TINY, TINY_2, TINY_MOBILE, official, official_2, official_mobile
from tiles import FeatureStore

DEMO = Path("geosam/demo/OSBS_029.tif")
needs_openvino = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import openvino"], capture_output=True).returncode != 0,
    reason="openvino is not installed",
)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOSAM_CACHE", str(folder))
        yield folder


def tiny(backend, name="tiny", precision=torch.float32):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sam1_weights, "CONFIGS", {"tiny": TINY})
        network = build_sam1(official(), Path("tiny.pth"))
    return Sam1Model(network, name, Engine(CPU.device, precision, backend))


def tiny_mobile(backend):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mobile_weights, "MOBILE_SAM", TINY_MOBILE)
        network = build_mobile_sam(official_mobile(), Path("mobile.pt"))
    return Sam1Model(network, "tiny-mobile", Engine(CPU.device, torch.float32, backend))


def tiny_2(backend):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sam2_weights, "CONFIGS_2", {"tiny": TINY_2})
        network = build_sam2(official_2(), Path("tiny.pt"))
    return Sam2Model(network, "hiera", Engine(CPU.device, torch.float32, backend))


def half_empty(size):
    picture = image(size=size)
    picture[:, :, size // 2 :] = np.array(FILL, np.uint8)[:, None, None]
    return picture


def error(ours, theirs):
    """The largest difference, relative to the spread."""
    one, two = (features.astype(np.float64) for features in (ours, theirs))
    return np.abs(one - two).max() / two.std()


def error_unrounded(ours, theirs):
    """The same of what rounding to half precision does not explain."""
    one, two = (features.astype(np.float64) for features in (ours, theirs))
    rounding = np.spacing(np.abs(two).astype(np.float16)).astype(np.float64) / 2
    return (np.abs(one - two) - rounding).max() / two.std()


@needs_openvino
@pytest.mark.parametrize("build", [tiny, tiny_mobile, tiny_2])
def test_the_embedding_of_sam_is_torch_s(build):
    pictures = torch.from_numpy(np.concatenate([image(0), half_empty(256)]))
    with torch.inference_mode():
        wanted = build("torch").encoder(pictures).numpy()
    model = build("openvino")
    assert isinstance(model.encoder, OpenVinoEncoder)
    assert error_unrounded(model.encoder(pictures).numpy(), wanted) < 1e-4
    assert all(weight.is_meta for weight in model.network.image_encoder.parameters())


@needs_openvino
def test_nano_s_features_are_torch_s_and_so_are_its_masks_and_its_id(caplog):
    pictures = torch.from_numpy(np.concatenate([image(size=512), half_empty(512)]))
    own, other = load_model(backend="openvino"), load_model(device="cpu")
    assert isinstance(own.encoder, OpenVinoEncoder)
    with torch.inference_mode():
        ours, wanted = own.encoder(pictures).numpy(), other.encoder(pictures).numpy()
    assert error_unrounded(ours, wanted) < 1e-4
    assert (own.id, own.precision) == (other.id, "fp32")
    assert not caplog.records


@needs_openvino
def test_bf16_is_said_and_done():
    exact, light = tiny("torch"), tiny("openvino", precision=torch.bfloat16)
    assert light.id == f"{exact.id}-bf16"
    assert isinstance(light.encoder, OpenVinoEncoder)
    assert 1e-3 < error(light.encode(image()), exact.encode(image())) < 0.2


@needs_openvino
def test_a_second_start_compiles_nothing(monkeypatch, cache):
    first = tiny("openvino").encode(image())
    assert len(list((cache / "openvino").glob("tiny-2*.blob"))) == 1

    def never(*_args):
        raise AssertionError

    monkeypatch.setattr(openvino_encoder, "_compile", never)
    assert np.array_equal(tiny("openvino").encode(image()), first)


@needs_openvino
def test_a_damaged_file_in_the_cache_is_made_again(cache, caplog):
    wanted = tiny("openvino").encode(image())
    (path,) = (cache / "openvino").glob("tiny-2*.blob")
    path.write_bytes(b"no model at all")
    assert np.array_equal(tiny("openvino").encode(image()), wanted)
    assert "It is removed, and made again" in caplog.text
    assert "instead" not in caplog.text
    assert path.stat().st_size > 1000


@needs_openvino
def test_what_takes_too_long_is_left_to_torch_with_a_warning(monkeypatch, caplog, cache):
    monkeypatch.setattr(openvino_encoder, "limit_s", lambda _: 0.0)
    slow = tiny("openvino", "slow")
    assert np.array_equal(slow.encode(image()), tiny("torch").encode(image()))
    assert "slow: not compiled within 0 s. Encoding with torch in fp32 instead" in caplog.text
    assert not list((cache / "openvino").glob("slow-*"))
    assert not [left for left in (cache / "openvino").iterdir() if left.is_dir()]


@needs_openvino
def test_what_openvino_cannot_compile_is_left_to_torch_with_a_warning(
    monkeypatch, caplog, tmp_path
):
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('operation not known')")
    monkeypatch.setattr(openvino_encoder, "PROGRAM", broken)
    model = tiny("openvino", "failing", torch.bfloat16)
    assert "failing-bf16: operation not known. Encoding with torch in bf16" in caplog.text
    wanted = tiny("torch", precision=torch.bfloat16).encode(image())
    assert np.array_equal(model.encode(image()), wanted)


def test_without_openvino_one_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match=r"pip install 'geosam-toolkit\[openvino\]'"):
        load_model(backend="openvino")


def test_it_is_not_for_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ModelError, match=r"openvino: asked for on cuda \(expected cpu\)"):
        load_model(backend="openvino", device="cuda")


@needs_openvino
def test_a_store_made_by_one_backend_serves_the_other(tmp_path):
    store = tmp_path / "features.zarr"
    words = [str(DEMO), "-o", str(store), "--scales", "1", "--json"]
    made = CliRunner().invoke(main, ["encode", *words, "--backend", "openvino"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["store"] == str(store)
    assert FeatureStore.open(store).meta["precision"] == "fp32"
    again = CliRunner().invoke(main, ["encode", *words])
    assert again.exit_code == 0, again.output
    other = CliRunner().invoke(main, ["check", str(store), "--raster", str(DEMO), "--json"])
    assert other.exit_code == 0, other.output
