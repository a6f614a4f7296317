"""Turns a traced image encoder into a compiled OpenVINO model: a program without geosam.

    python -P openvino_compile.py TRACE BLOB PRECISION SIZE

`openvino_encoder` runs it in a process that can be ended, because OpenVINO compiles some networks
for hours. OpenVINO's own entry, `openvino.convert_model`, is avoided: it reports its use to a
server. Its frontend for torch does the same work and reports nothing.
"""

import sys
from pathlib import Path

import openvino
import torch
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

OPENVINO_TYPES = {"fp32": "f32", "bf16": "bf16"}


def settings(precision: str, threads: int) -> dict[str, object]:
    """How OpenVINO has to compute: as asked, where it would choose by itself.

    Args:
        precision: "fp32" or "bf16"; left to itself, OpenVINO takes bf16 where the CPU has it.
        threads: to compute in; not bound to cores, which other processes may be using.
    """
    return {
        "INFERENCE_PRECISION_HINT": OPENVINO_TYPES[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }


def main(trace: Path, blob: Path, precision: str, size: int) -> None:
    """Compile the trace of an encoder of images (1, 3, size, size) and write the result."""
    frontend = FrontEndManager().load_by_framework("pytorch")
    traced = torch.jit.load(trace)  # type: ignore[no-untyped-call]
    decoder = TorchScriptPythonDecoder(traced)  # the frontend does not keep it alive
    model = frontend.convert(frontend.load(decoder))
    image = model.inputs[0]
    image.get_node().set_element_type(openvino.Type.u8)
    model.reshape([1, 3, size, size])
    compiled = openvino.Core().compile_model(model, "CPU", settings(precision, 1))
    blob.write_bytes(compiled.export_model().getbuffer())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
