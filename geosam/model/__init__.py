"""The networks: the only home of torch. Knows images and pixels, nothing of maps."""

from pathlib import Path

from geosam.errors import ModelError, WeightsError
from geosam.model.config import NANO
from geosam.model.runtime import SamModel
from geosam.model.sam import Sam
from geosam.model.sam1_runtime import Sam1Model
from geosam.model.sam1_weights import CONFIGS, build_sam1, is_sam1
from geosam.model.weights import fill, read_weights

NANO_MARK = "image_encoder.trunk.stem.weight"
MODELS = {"nano": Path(__file__).with_name("nano.safetensors")}


def load_model(name: str | Path = "nano") -> SamModel | Sam1Model:
    """Load a model by name, or from a file of weights.

    Args:
        name: "nano", whose weights are embedded, or the path of a file, whose network is told by
            the names of its tensors: nano's (.safetensors); SAM ViT-B, ViT-L or ViT-H as Meta
            publishes them (.pth) or as transformers saves them (.safetensors).

    Raises:
        ModelError: there is no model of that name and no file at that path.
        WeightsError: the file does not hold the weights of such a network.
    """
    path = MODELS.get(str(name), Path(name))
    if not path.exists():
        raise ModelError(
            f"Model {str(name)!r}: no such model or file (expected {', '.join(MODELS)}, or the "
            "path of a weights file). See `geosam models list`."
        )
    weights, digits = read_weights(path)
    model_id = f"{path.stem}-{digits}"
    if is_sam1(weights):
        return Sam1Model(build_sam1(weights, path), model_id)
    if NANO_MARK not in weights:
        raise WeightsError(
            f"{path}: tensors such as {min(weights, default='none at all')} (expected those of "
            f"nano, {', '.join(CONFIGS)}). Use one of these models."
        )
    network = Sam(NANO)
    fill(network, weights, path, "nano")
    return SamModel(network, model_id)
