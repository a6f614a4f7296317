"""Published weights of SAM: sound ones load whoever wrote them, others are refused by name."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from geosam import load_model
from geosam.errors import WeightsError
from geosam.model import sam1_weights
from tests.references import image, prompts
from tests.seeded import TINY, in_hugging_face, official

TWICE = "prompt_encoder.shared_embedding.positional_embedding"
ONCE = "shared_image_embedding.positional_embedding"


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(sam1_weights.CONFIGS, "tiny", TINY)


@pytest.fixture
def weights():
    return official()


def refused(path, match):
    with pytest.raises(WeightsError, match=match) as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def test_meta_s_and_transformers_files_are_the_same_model(tmp_path, weights):
    torch.save(weights, tmp_path / "a.pth")
    hugging_face = in_hugging_face(weights)
    save_file(hugging_face, tmp_path / "once.safetensors")
    twice = hugging_face | {TWICE: hugging_face[ONCE].clone()}
    save_file(twice, tmp_path / "twice.safetensors")
    other = {key: value for key, value in twice.items() if key != ONCE}
    save_file(other, tmp_path / "other.safetensors")
    torch.save(hugging_face, tmp_path / "b.pt")
    answers = []
    for name in ("a.pth", "once.safetensors", "twice.safetensors", "other.safetensors", "b.pt"):
        model = load_model(tmp_path / name)
        stem, digits = model.id.rsplit("-", 1)
        assert stem == name.split(".")[0] and len(digits) == 8
        features = model.encode(image())[0]
        answers.append((features, *model.decode(features, prompts("box"), multimask=True)))
    for answer in answers[1:]:
        for one, two in zip(answers[0], answer, strict=True):
            assert np.array_equal(one, two)


def test_half_precision_is_computed_in_single(tmp_path, weights):
    torch.save({key: value.half() for key, value in weights.items()}, tmp_path / "a.pth")
    model = load_model(tmp_path / "a.pth")
    for value in model.network.state_dict().values():
        assert value.dtype == torch.float32
    assert torch.equal(
        model.network.mask_decoder.iou_token,
        weights["mask_decoder.iou_token.weight"].half().float(),
    )


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_differences_are_named_as_the_file_has_them(tmp_path, weights, suffix):
    path = tmp_path / f"w{suffix}"
    convert, write = (dict, torch.save) if suffix == ".pth" else (in_hugging_face, save_file)
    good = convert(weights)
    key = next(key for key in good if "neck" in key and "weight" in key)
    lacking = {name: value for name, value in good.items() if name != key}
    write(lacking | {"mask_decoder.hf_token.weight": torch.zeros(1, 64)}, path)
    refused(path, rf"has unknown mask_decoder\.hf_token\.weight; lacks {key}; 2 differences.*tiny")
    write(good | {key: torch.zeros(3, 3)}, path)
    refused(path, rf"{key} is \(3, 3\), not \(64, 64, 1, 1\); 1 differences")
    write(good | {key: torch.full(good[key].shape, torch.nan)}, path)
    refused(path, f"NaN or infinity in {key}")


def test_a_code_that_disagrees_with_itself_is_refused(tmp_path, weights):
    path = tmp_path / "w.safetensors"
    hugging_face = in_hugging_face(weights)
    save_file(hugging_face | {TWICE: hugging_face[ONCE] + 1}, path)
    refused(path, f"{ONCE} and {TWICE} differ")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_files_are_refused(tmp_path, weights, suffix, share):
    path = tmp_path / f"w{suffix}"
    torch.save(weights, path) if suffix == ".pth" else save_file(in_hugging_face(weights), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(path, r"expected a.*file.*Fetch or export the weights again")


def test_something_else_is_refused(tmp_path, weights):
    path = tmp_path / "w.pth"
    path.write_bytes(b"<html>Not found</html>")
    refused(path, "expected a file of tensors that torch saved")
    torch.save(weights["mask_decoder.iou_token.weight"], path)
    refused(path, r"it is a Tensor \(expected tensors by name\)")
    torch.save({"state": weights}, path)
    refused(path, r"state is a dict \(expected tensors by name\)")
    torch.save({"backbone.conv1.weight": torch.zeros(2)}, path)
    refused(
        path, r"such as backbone\.conv1.*expected those of nano, SAM ViT-B.*SAM 2\.1 Hiera tiny"
    )
    torch.save({}, path)
    refused(path, "such as none at all")
    wide = weights | {"image_encoder.patch_embed.proj.weight": torch.zeros(65, 3, 16, 16)}
    torch.save(wide, path)
    refused(path, r"an image encoder of width 65 \(expected 768 in SAM ViT-B, 1024 in SAM ViT-L")


class Bomb:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize(
    "write", [torch.save, lambda what, path: path.write_bytes(pickle.dumps(what))]
)
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, weights, write):
    path, trace = tmp_path / "w.pth", tmp_path / "trace"
    write(weights | {"bomb": Bomb(trace)}, path)
    refused(path, "expected a file of tensors that torch saved")
    assert not trace.exists()


def test_tensors_saved_by_torch_are_no_safetensors(tmp_path, weights):
    path = tmp_path / "w.safetensors"
    torch.save(weights, path)
    refused(path, "expected a safetensors file")
