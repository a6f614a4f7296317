"""A loaded model travels by name: who unpickles it loads the same weights where it is."""

from collections.abc import Callable
from typing import Any

from geosam.errors import ModelError, WeightsError


class Loaded:
    """What all models that `load_model` gives have in common.

    Attributes:
        id: see `geosam.protocol.Model`.
        load: how it was loaded; None if it was made otherwise.
    """

    id: str
    load: "Callable[[], Loaded] | None" = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self.load is None:
            raise ModelError(
                f"Model {self.id}: made in memory (expected one from load_model). Save its weights "
                "and load them by their path."
            )
        return _load, (self.load, self.id)


def _load(load: Callable[[], Loaded], expected_id: str) -> Loaded:
    model = load()
    if model.id != expected_id:
        raise WeightsError(
            f"Model {model.id}: other weights (expected {expected_id}). Put the same file there "
            "under the same name."
        )
    return model
