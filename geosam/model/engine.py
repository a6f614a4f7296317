"""Where a network computes, in which precision, and what amounts of work suit it there."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from geosam.errors import ModelError
from geosam.model.openvino_encoder import Encoder, check_openvino, on_openvino
from geosam.protocol import Backend, Precision

CACHE = 8 * 2**20  # bytes of cells that stay in a CPU's cache while they are worked on
FEW = 4  # prompts of a small network that are too little work for several threads
GPU_SHARE = 512 * 2**20  # bytes of cells that keep a GPU busy,
GPU_PART = 32  # if it has so many times that: the whole work takes ten times the cells

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Engine:
    """A device and the precision of the work that is done on it.

    Attributes:
        device: a CPU or a GPU.
        dtype: of whatever is done to the cells of images; the few tokens of prompts always have
            single precision.
        backend: what runs the image encoder; all else is torch's.
    """

    device: torch.device
    dtype: torch.dtype
    backend: Backend = "torch"

    @classmethod
    def of(
        cls, device: str = "auto", precision: Precision = "fp32", backend: Backend = "torch"
    ) -> Self:
        """The engine that a user names.

        Args:
            device: "auto" (a GPU if there is one, else the CPU), "cpu", "cuda" or "cuda:N".
            precision: "fp32", or "bf16" on hardware that has it.
            backend: "torch", "torch-compile", or "openvino", which is for the CPU.

        Raises:
            ModelError: there is no such device or backend here, or it cannot compute in that
                precision.
        """
        if backend not in get_args(Backend):
            raise ModelError(
                f"Backend {backend!r}: not known (expected {' or '.join(get_args(Backend))}). "
                "Choose one."
            )
        found = _device("cpu" if (device, backend) == ("auto", "openvino") else device)
        if precision not in DTYPES:
            raise ModelError(
                f"Precision {precision!r}: not known (expected {' or '.join(DTYPES)}). Choose one."
            )
        if precision == "bf16" and not has_bf16(found):
            raise ModelError(
                f"Precision bf16: {found} has no instructions for it (expected AVX512-BF16 or AMX "
                "of a CPU, or a GPU since Ampere). Use fp32."
            )
        if backend == "openvino":
            if found.type != "cpu":
                raise ModelError(
                    f"Backend openvino: asked for on {found} (expected cpu). Use torch on a GPU."
                )
            check_openvino()
        if precision == "fp32" and found.type == "cuda":
            # Unless told, torch rounds what GPUs convolve to ten bits.
            torch.backends.cudnn.allow_tf32 = False
        return cls(found, DTYPES[precision], backend)

    @property
    def precision(self) -> Precision:
        """The name of the precision."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.dtype)

    def encoder(self, encoder: nn.Module, name: str, size: int) -> Encoder:
        """An image encoder, in single precision on this device, as it is to be run.

        Args:
            encoder: images (B, 3, S, S), uint8 -> features (B, C, h, w); its weights change.
            name: the model's id.
            size: S.
        """
        if self.backend == "openvino":
            found = on_openvino(encoder, name, size, self.precision)
            if found is not encoder:
                return found
        encoder = encoder.to(self.dtype)
        if self.backend == "torch-compile":
            from geosam.model.compiled_encoder import CompiledEncoder  # takes a second

            return CompiledEncoder(encoder, name)
        return encoder

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

    def array(self, tensor: torch.Tensor) -> npt.NDArray[Any]:
        """A tensor on the device as an array; what a GPU gives stays in pinned memory."""
        if self.device.type == "cpu":
            return tensor.numpy()
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return pinned.copy_(tensor).numpy()

    def in_batches(
        self,
        encode: Callable[[torch.Tensor], torch.Tensor],
        images: npt.NDArray[np.uint8],
        batch: int,
    ) -> npt.NDArray[Any]:
        """Features of images (B, 3, S, S), so many encoded at a time."""
        parts = [
            self.array(encode(self.tensor(images[start : start + batch])))
            for start in range(0, len(images), batch)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @contextmanager
    def threads_for(self, prompts: int) -> Iterator[None]:
        """So many prompts are decoded within; a few of them by one thread.

        More would gain little and wait for one another wherever someone else, such as the window
        that shows the outline, wants a core.
        """
        threads = torch.get_num_threads()  # of the calling thread, like those set here
        if prompts > FEW or threads == 1 or self.device.type != "cpu":
            yield
            return
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    @property
    def images(self) -> int:
        """Images to be encoded at once: one is enough work for a CPU and stays in its cache."""
        return 1 if self.device.type == "cpu" else 16

    def prompts(self, cell_bytes: int) -> int:
        """Prompts to be decoded at once, when the cells of each take so many bytes."""
        at_once = CACHE
        if self.device.type == "cuda":
            memory = torch.cuda.get_device_properties(self.device).total_memory
            at_once = min(GPU_SHARE, memory // GPU_PART)
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


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 by instructions of its own."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # not in every version
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)
