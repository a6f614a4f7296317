"""Where a network computes, in which precision, and what amounts of work suit it there."""

import re
from dataclasses import dataclass
from typing import Any, Self

import numpy.typing as npt
import torch

from geosam.errors import ModelError
from geosam.protocol import Precision

CACHE = 8 * 2**20  # bytes of cells that stay in a CPU's cache while they are worked on
GPU_SHARE = 256 * 2**20  # bytes of cells that keep a GPU busy; the whole work takes ten times that

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Engine:
    """A device and the precision of the work that is done on it.

    Attributes:
        device: a CPU or a GPU.
        dtype: of whatever is done to the cells of images; the few tokens of prompts always have
            single precision.
    """

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, device: str = "auto", precision: Precision = "fp32") -> Self:
        """The engine that a user names.

        Args:
            device: "auto" (a GPU if there is one, else the CPU), "cpu", "cuda" or "cuda:N".
            precision: "fp32", or "bf16" on hardware that has it.

        Raises:
            ModelError: there is no such device here, or it cannot compute in that precision.
        """
        found = _device(device)
        if precision not in DTYPES:
            raise ModelError(
                f"Precision {precision!r}: not known (expected {' or '.join(DTYPES)}). Choose one."
            )
        if precision == "bf16" and not _has_bf16(found):
            raise ModelError(
                f"Precision bf16: {found} has no instructions for it (expected AVX512-BF16 or AMX "
                "of a CPU, or a GPU since Ampere). Use fp32."
            )
        return cls(found, DTYPES[precision])

    @property
    def precision(self) -> Precision:
        """The name of the precision."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.dtype)

    @property
    def suffix(self) -> str:
        """What it adds to a model's id: features in another precision are other features."""
        return "" if self.dtype == torch.float32 else f"-{self.precision}"

    def tensor(self, array: npt.NDArray[Any]) -> torch.Tensor:
        """An array on the device; a GPU takes it from pinned memory while it goes on computing."""
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    @property
    def images(self) -> int:
        """Images to be encoded at once: one is enough work for a CPU and stays in its cache."""
        return 1 if self.device.type == "cpu" else 16

    def prompts(self, cell_bytes: int) -> int:
        """Prompts to be decoded at once, when the cells of each take so many bytes."""
        at_once = CACHE if self.device.type == "cpu" else GPU_SHARE
        return max(1, at_once // cell_bytes)


CPU = Engine(torch.device("cpu"), torch.float32)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ModelError(
            f"Device {name!r}: not known (expected auto, cpu, cuda or cuda:N). Choose one."
        )
    device, count = torch.device(name), torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ModelError(
            f"Device {name!r}: not there (expected one of the {count} GPUs that torch finds). Use "
            "cpu, or install a torch built for CUDA and the GPU's driver."
        )
    return device


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # not in every version
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)
