"""The networks: the only home of torch. Knows images and pixels, nothing of maps."""

from functools import partial
from pathlib import Path

from geosam.errors import ModelError, WeightsError
from geosam.model.config import NANO
from geosam.model.engine import Engine
from geosam.model.mobile_weights import MOBILE_MARK, build_mobile_sam
from geosam.model.runtime import SamModel
from geosam.model.sam import Sam
from geosam.model.sam1_runtime import Sam1Model
from geosam.model.sam1_weights import CONFIGS, build_sam1, is_sam1
from geosam.model.sam2_runtime import Sam2Model
from geosam.model.sam2_weights import CONFIGS_2, build_sam2, is_sam2
from geosam.model.weights import Weights, fill, read_weights
from geosam.protocol import Backend, Precision
from geosam.registry import PUBLISHED

NANO_MARK = "image_encoder.trunk.stem.weight"
MODELS = {"nano": Path(__file__).with_name("nano.safetensors")}


def load_model(
    name: str | Path = "nano",
    *,
    device: str = "auto",
    precision: Precision = "fp32",
    backend: Backend = "torch",
) -> SamModel | Sam1Model | Sam2Model:
    """Load a model by name, or from a file of weights. Never uses the network.

    Args:
        name: "nano", whose weights are embedded; "sam-vit-b", "sam-vit-l", "sam-vit-h",
            "mobile-sam", "sam2.1-hiera-tiny", "sam2.1-hiera-small", "sam2.1-hiera-base-plus" or
            "sam2.1-hiera-large", once `geosam models pull` has fetched them; or the path of a file,
            whose network is told by the names of its tensors: nano's (.safetensors); SAM ViT-B,
            ViT-L or ViT-H, or SAM 2.1 Hiera tiny, small, base-plus or large, as Meta publishes them
            (.pth, .pt) or as transformers saves them (.safetensors); MobileSAM as its authors
            publish it (.pt), or the same tensors in .safetensors.
        device: "auto" (a GPU if there is one, else the CPU), "cpu", "cuda" or "cuda:N".
        precision: "fp32"; or "bf16", faster on hardware that has it and less exact. Its features
            are told apart from those in fp32.
        backend: what runs the image encoder: "torch"; "openvino", faster on a CPU and in fp32 with
            the same features, which compiles a model once, in some seconds; or "torch-compile",
            torch's own compiler, which needs a C++ compiler and a minute or two at each start.
            Where they cannot, torch is used as it is, with a warning.

    Raises:
        ModelError: there is no model of that name and no file at that path, it was not fetched, or
            device, precision or backend are not to be had here.
        WeightsError: the file does not hold the weights of such a network.
    """
    engine = Engine.of(device, precision, backend)
    path, expected_id = _find(name)
    weights, digits = read_weights(path)
    model_id = f"{path.stem}-{digits}"
    if expected_id not in (None, model_id):
        raise WeightsError(
            f"{path}: id {model_id} (expected {expected_id}). Remove it and run `geosam models "
            f"pull {name}` again."
        )
    model = _build(weights, path, model_id, engine)
    place = name if str(name) in (*MODELS, *PUBLISHED) else path.resolve()
    model.load = partial(load_model, place, device=device, precision=precision, backend=backend)
    return model


def _build(
    weights: Weights, path: Path, model_id: str, engine: Engine
) -> SamModel | Sam1Model | Sam2Model:
    if is_sam1(weights):
        return Sam1Model(build_sam1(weights, path), model_id, engine)
    if MOBILE_MARK in weights:
        return Sam1Model(build_mobile_sam(weights, path), model_id, engine)
    if is_sam2(weights):
        return Sam2Model(build_sam2(weights, path), model_id, engine)
    if NANO_MARK not in weights:
        known = ", ".join(["nano", *CONFIGS, "MobileSAM", *CONFIGS_2])
        raise WeightsError(
            f"{path}: tensors such as {min(weights, default='none at all')} (expected those of "
            f"{known}). Use one of these models."
        )
    network = Sam(NANO)
    fill(network, weights, path, "nano")
    return SamModel(network, model_id, engine)


def _find(name: str | Path) -> tuple[Path, str | None]:
    """The file that a name stands for, and the id that its model must have, if it is known."""
    if str(name) in MODELS:
        return MODELS[str(name)], None
    if str(name) in PUBLISHED:
        file = PUBLISHED[str(name)]
        if not file.path.exists():
            raise ModelError(
                f"Model {name!r}: not fetched yet (expected {file.path}). Run `geosam models pull "
                f"{name}`, {file.size / 1e6:.0f} MB."
            )
        return file.path, file.model_id
    if not Path(name).exists():
        known = ", ".join([*MODELS, *PUBLISHED])
        raise ModelError(
            f"Model {str(name)!r}: no such model or file (expected {known}, or the path of a "
            "weights file). See `geosam models list`."
        )
    return Path(name), None
