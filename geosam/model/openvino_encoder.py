"""Image encoders run by OpenVINO: the same network in another engine, for CPUs.

The network is traced from torch's, so there is one definition of it. What OpenVINO compiles is kept
in the cache folder, for one CPU, one version of OpenVINO and one of geosam; later starts read it.
"""

import hashlib
import logging
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from geosam.cache import cache_folder
from geosam.errors import ModelError
from geosam.protocol import Precision

if TYPE_CHECKING:
    import openvino

LIMIT_S = 120.0  # for a network of any size to be compiled ...
LIMIT_S_PER_WEIGHT = 1e-6  # ... and more for large ones
PROGRAM = Path(__file__).with_name("openvino_compile.py")
DIGITS = 8

Encoder: TypeAlias = Callable[[Tensor], Tensor]
"""Images (B, 3, S, S), uint8 -> features (B, C, h, w), in single or half precision."""

log = logging.getLogger(__name__)


class OpenVinoEncoder:
    """A compiled image encoder; takes what the torch module took and gives the same, rounded."""

    def __init__(self, compiled: "openvino.CompiledModel") -> None:
        self._compiled = compiled

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S), uint8 -> features (B, C, h, w), float16, one image at a time."""
        request = self._compiled.create_infer_request()  # of this call alone: calls may overlap
        features = np.empty((len(images), *self._compiled.output(0).shape[1:]), np.float16)
        for own, image in zip(features, images.numpy(), strict=True):
            own[:] = request.infer([image[None]])[0][0]
        return torch.from_numpy(features)  # (B, C, h, w)


class _Halved(nn.Module):
    """An encoder whose features leave it as they are kept: half as much to copy."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.encoder(images)
        return features.half()


def check_openvino() -> None:
    """Make sure that OpenVINO is installed.

    Raises:
        ModelError: it is not.
    """
    try:
        import openvino  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"Backend openvino: {error} (expected the package openvino). Run `pip install "
            "'geosam-toolkit[openvino]'`."
        ) from error


def on_openvino(encoder: nn.Module, name: str, size: int, precision: Precision) -> Encoder:
    """The encoder as OpenVINO runs it.

    Args:
        encoder: images (B, 3, S, S), uint8 -> features (B, C, h, w), in float32. Its weights are
            given free if OpenVINO has them.
        name: the model's id, which tells weights and precision.
        size: S.
        precision: in which OpenVINO computes.

    Returns:
        the encoder in OpenVINO; or, with a warning, the torch module itself where OpenVINO fails
        or takes too long to compile it.
    """
    path = _place(name)
    try:
        compiled = _read(path, precision)
        if compiled is None:
            _compile(encoder, path, size, precision)
            compiled = _read(path, precision)
        reason = f"{path} cannot be read"
    except (subprocess.SubprocessError, OSError, RuntimeError) as error:
        compiled, reason = None, _reason(error)
    if compiled is None:
        log.warning(
            "Backend openvino: %s: %s. Encoding with torch in %s instead, which is slower; leave "
            "the backend out to be rid of this message.", name, reason, precision,
        )  # fmt: skip
        return encoder
    encoder.to_empty(device="meta")
    return OpenVinoEncoder(compiled)


def limit_s(encoder: nn.Module) -> float:
    """The time in which an encoder must be compiled."""
    return LIMIT_S + LIMIT_S_PER_WEIGHT * sum(weight.numel() for weight in encoder.parameters())


def _place(name: str) -> Path:
    """The file for a compiled model. It serves this CPU and these versions alone."""
    import openvino

    from geosam import __version__

    cpu = openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")
    version = openvino.get_version()
    digits = hashlib.sha256(f"{cpu} {version} {__version__}".encode()).hexdigest()[:DIGITS]
    return cache_folder() / "openvino" / f"{name}-{version.partition('-')[0]}-{digits}.blob"


def _read(path: Path, precision: Precision) -> "openvino.CompiledModel | None":
    """The compiled model in a file, ready to run; None if there is none, or it is damaged."""
    import openvino

    from geosam.model.openvino_compile import settings

    if not path.exists():
        return None
    wanted = settings(precision, torch.get_num_threads())
    try:
        return openvino.Core().import_model(path.read_bytes(), "CPU", wanted)
    except RuntimeError as error:
        log.warning("%s: %s. It is removed, and made again if need be.", path, _reason(error))
        path.unlink()
        return None


def _compile(encoder: nn.Module, path: Path, size: int, precision: Precision) -> None:
    """Trace an encoder here, compile it in a process of its own, and put it where it belongs."""
    log.info("OpenVINO compiles %s, once", path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = torch.zeros((1, 3, size, size), dtype=torch.uint8)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        trace, blob = Path(folder) / "trace.pt", Path(folder) / path.name
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # about shapes that become constants: they are
            traced = torch.jit.trace(_Halved(encoder), image, check_trace=False)  # type: ignore[no-untyped-call]
            torch.jit.save(traced, trace)
        subprocess.run(
            [sys.executable, "-P", PROGRAM, trace, blob, precision, str(size)],
            check=True, capture_output=True, text=True, timeout=limit_s(encoder),
        )  # fmt: skip
        blob.replace(path)


def _reason(error: Exception) -> str:
    """What went wrong, in one line."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"not compiled within {error.timeout:.0f} s"
    told = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
    lines = [line for line in (told or str(error)).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
