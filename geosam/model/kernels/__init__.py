"""Work on a GPU that is bound by memory when torch does it in steps, each as one kernel (Triton).

Source: Tillet et al. 2019 (Triton). Torch for Linux brings it; elsewhere torch's own steps remain.
They have no gradients.
"""

from importlib.util import find_spec

import torch
from torch import Tensor

AVAILABLE = torch.cuda.is_available() and find_spec("triton") is not None

if AVAILABLE:
    from geosam.model.kernels.attention import attend as attend
    from geosam.model.kernels.norm import normalised as normalised


def suit(x: Tensor) -> bool:
    """Whether the kernels are to be used for what is done to x; a compiler makes its own."""
    if torch.compiler.is_compiling():
        return False
    return AVAILABLE and x.is_cuda and not torch.is_grad_enabled()
