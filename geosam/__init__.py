"""geosam: promptable segmentation for maps.

Clicks and boxes in map coordinates in, georeferenced polygons out. See `docs/` and `geosam --help`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geosam.automatic.run import everything
    from geosam.evaluation.trials import evaluate
    from geosam.evaluation.truth import Pair
    from geosam.exchange.coco import import_coco
    from geosam.exchange.training_set import export
    from geosam.masks import Mask
    from geosam.model import load_model
    from geosam.output import write
    from geosam.polygons import vectorize
    from geosam.prompts import Prompt, PromptSet
    from geosam.protocol import Model, TilePrompt
    from geosam.training.fine_tuning import train
    from geosam.verbs import encode, preview, segment

__version__ = "0.1.0"

# Names are loaded when they are first used: importing geosam stays quick and never loads torch.
_HOMES = {
    "Mask": "geosam.masks",
    "Model": "geosam.protocol",
    "Pair": "geosam.evaluation.truth",
    "Prompt": "geosam.prompts",
    "PromptSet": "geosam.prompts",
    "TilePrompt": "geosam.protocol",
    "encode": "geosam.verbs",
    "evaluate": "geosam.evaluation.trials",
    "export": "geosam.exchange.training_set",
    "import_coco": "geosam.exchange.coco",
    "everything": "geosam.automatic.run",
    "load_model": "geosam.model",
    "preview": "geosam.verbs",
    "segment": "geosam.verbs",
    "train": "geosam.training.fine_tuning",
    "vectorize": "geosam.polygons",
    "write": "geosam.output",
}

__all__ = [
    "Mask",
    "Model",
    "Pair",
    "Prompt",
    "PromptSet",
    "TilePrompt",
    "encode",
    "evaluate",
    "everything",
    "export",
    "import_coco",
    "load_model",
    "preview",
    "segment",
    "train",
    "vectorize",
    "write",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # whatever the name stands for
    if name not in _HOMES:
        raise AttributeError(f"module 'geosam' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
