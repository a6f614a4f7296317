"""Where a network computes, in which precision, and what amounts of work suit it there."""

import re
from dataclasses import dataclass
from typing import Self

import torch

from geosam.errors import ModelError
from geosam.protocol import Precision

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
        if precision == "bf16" and not has_bf16(found):
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

    @property
    def images(self) -> int:
        """Images to be encoded at once; sets the peak memory."""
        return 4 if self.device.type == "cpu" else 16


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


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 by instructions of its own."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # not in every version
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)
