"""Published weights of SAM 2: sound ones load whoever wrote them, others are refused by name."""

import pytest
import torch
from safetensors.torch import save_file

from geosam import load_model
from geosam.errors import WeightsError
from geosam.model import sam2_weights
from geosam.model.config import HIERA_BASE_PLUS, HIERA_LARGE, HIERA_SMALL, HIERA_TINY
from geosam.model.published import published_shapes
from geosam.model.sam2 import Sam2
from geosam.model.sam2_weights import VIDEO, hugging_face_names_2, meta_names_2
from tests.model.alike import same_models
from tests.references_sam2 import HuggingFace2, stand_ins
from tests.seeded import TINY_2, in_hugging_face_2, official_2

TWICE = "prompt_encoder.shared_embedding.positional_embedding"
ONCE = "shared_image_embedding.positional_embedding"
SIZES = [("t", HIERA_TINY), ("s", HIERA_SMALL), ("b+", HIERA_BASE_PLUS), ("l", HIERA_LARGE)]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(sam2_weights.CONFIGS_2, "tiny", TINY_2)


@pytest.fixture
def weights():
    return official_2()


def refused(path, match):
    with pytest.raises(WeightsError, match=match) as caught:
        load_model(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("size", "config"), SIZES, ids=[size for size, _ in SIZES])
def test_published_shapes_are_those_of_transformers(size, config):
    """Which blocks see the whole image shows in no shape: see the test of the configurations."""
    with torch.device("meta"):
        network = HuggingFace2(config).network
        own = published_shapes(Sam2(config), hugging_face_names_2)
    theirs = {key: value.shape for key, value in network.state_dict().items()}
    assert own == {key: theirs[key] for key in own}
    rest = {key for key in theirs if not key.startswith(VIDEO)} - own.keys()
    assert rest <= {TWICE}


@pytest.mark.filterwarnings("ignore")  # hydra's
@pytest.mark.parametrize(("size", "config"), SIZES, ids=[size for size, _ in SIZES])
def test_published_shapes_and_configurations_are_meta_s(size, config):
    for package in ("hydra", "omegaconf"):
        pytest.importorskip(package)
    with stand_ins():
        build = pytest.importorskip("sam2.build_sam")
    network = build.build_sam2(f"configs/sam2.1/sam2.1_hiera_{size}.yaml", device="cpu")
    theirs = {key: value.shape for key, value in network.state_dict().items()}
    with torch.device("meta"):
        own = published_shapes(Sam2(config), meta_names_2)
    assert own == {key: shape for key, shape in theirs.items() if not key.startswith(VIDEO)}
    trunk = network.image_encoder.trunk
    assert tuple(trunk.global_att_blocks) == config.encoder.looks_everywhere
    assert tuple(trunk.window_spec) == config.encoder.windows


def test_transformers_tensors_of_videos_are_known(weights):
    video = pytest.importorskip("transformers.models.sam2_video")
    with torch.device("meta"):
        keys = video.Sam2VideoModel(video.Sam2VideoConfig()).state_dict().keys()
        own = {name for key in Sam2(HIERA_TINY).state_dict() for name in hugging_face_names_2(key)}
    assert {key for key in keys if not key.startswith(VIDEO)} - {TWICE} == own
    assert not any(key.startswith(VIDEO) for key in own)


def test_meta_s_and_transformers_files_are_the_same_model(tmp_path, weights):
    torch.save({"model": weights}, tmp_path / "a.pt")
    torch.save(weights, tmp_path / "bare.pth")
    video = {"memory_encoder.out_proj.weight": torch.zeros(3), "no_obj_ptr": torch.zeros(1, 2)}
    torch.save({"model": weights | video}, tmp_path / "video.pt")
    hugging_face = in_hugging_face_2(weights)
    save_file(hugging_face, tmp_path / "once.safetensors")
    twice = hugging_face | {TWICE: hugging_face[ONCE].clone()}
    twice["memory_attention.layers.0.linear1.bias"] = torch.zeros(2)
    save_file(twice, tmp_path / "twice.safetensors")
    models = [load_model(path) for path in sorted(tmp_path.iterdir())]
    assert len(models) == 5
    same_models(models)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_differences_are_named_as_the_file_has_them(tmp_path, weights, suffix):
    path = tmp_path / f"w{suffix}"
    convert, write = (
        (dict, lambda what, path: torch.save({"model": what}, path))
        if suffix == ".pt"
        else (in_hugging_face_2, save_file)
    )
    good = convert(weights)
    key = next(key for key in good if "neck.convs.1" in key and "weight" in key)
    lacking = {name: value for name, value in good.items() if name != key}
    write(lacking | {"object_memory.weight": torch.zeros(1, 64)}, path)
    refused(path, rf"has unknown object_memory\.weight; lacks {key}; 2 differences.*tiny")
    write(good | {key: torch.zeros(3, 3)}, path)
    refused(path, rf"{key} is \(3, 3\), not \(32, 64, 1, 1\); 1 differences")
    write(good | {key: torch.full(good[key].shape, torch.nan)}, path)
    refused(path, f"NaN or infinity in {key}")


def test_another_trunk_is_refused(tmp_path, weights):
    path = tmp_path / "w.pt"
    lacking = {key: value for key, value in weights.items() if ".blocks.7." not in key}
    torch.save({"model": lacking}, path)
    refused(path, r"a trunk of width 16 with 7 blocks \(expected 96 and 12 in SAM 2\.1 Hiera tiny")
