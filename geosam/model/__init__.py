"""The networks: the only home of torch. Knows images and pixels, nothing of maps."""

from pathlib import Path

from geosam.errors import ModelError
from geosam.model.config import NANO
from geosam.model.runtime import SamModel
from geosam.model.sam import Sam
from geosam.model.weights import load_weights

MODELS = {"nano": Path(__file__).with_name("nano.safetensors")}


def load_model(name: str | Path = "nano") -> SamModel:
    """Load a model by name, or nano's network with weights of your own.

    Args:
        name: "nano", whose weights are embedded, or the path of a safetensors file with weights
            of the same network.

    Raises:
        ModelError: there is no model of that name and no file at that path.
        WeightsError: the file does not hold weights of the network.
    """
    path = MODELS.get(str(name), Path(name))
    if not path.exists():
        raise ModelError(
            f"Model {str(name)!r}: no such model or file (expected {', '.join(MODELS)}, or the "
            "path of a safetensors file). See `geosam models list`."
        )
    network = Sam(NANO)
    digits = load_weights(network, path)
    return SamModel(network, f"{path.stem}-{digits}")
