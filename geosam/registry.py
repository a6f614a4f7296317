"""The models whose weights can be fetched, and where they are kept. Nothing here uses the network.

Sources: URLs and licences as in the READMEs of segment-anything, MobileSAM and sam2. No sha256 is
published there: sizes and hashes are those on which independent projects agree that fetch these
files. Those of SAM and SAM 2.1 stand in micro_sam (computational-cell-analytics/micro-sam, util.py,
v2/util.py), those of SAM also in SlicerSegmentWithSAM (mazurowski-lab); the six digits in the names
of SAM's files begin their MD5. Those of MobileSAM stand in QPane (Artificial Sweetener) and, with
the size, in libreyolo (LibreYOLO).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geosam.cache import cache_folder
from geosam.errors import ModelError
from geosam.protocol import Progress

BLOCK = 2**20  # bytes hashed or fetched at a time

State = Literal["ok", "absent", "damaged"]


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A published file of weights.

    Attributes:
        name: of the model.
        url: where it is published.
        size: bytes.
        sha256: of the file, in hexadecimal.
        licence: SPDX identifier.
        tile_px: side of the images that the model takes.
    """

    name: str
    url: str
    size: int
    sha256: str
    licence: str
    tile_px: int

    @property
    def filename(self) -> str:
        """The file's name where it is published, and here."""
        return self.url.rpartition("/")[2]

    @property
    def path(self) -> Path:
        """Where the file is, or would be, on this machine."""
        return cache_folder() / self.filename

    @property
    def model_id(self) -> str:
        """Id of the model that the file makes."""
        return f"{self.path.stem}-{self.sha256[:8]}"


_META = "https://dl.fbaipublicfiles.com/segment_anything/"
_META_2 = "https://dl.fbaipublicfiles.com/segment_anything_2/092824/"
PUBLISHED = {
    file.name: file
    for file in (
        WeightsFile(
            "sam-vit-b", _META + "sam_vit_b_01ec64.pth", 375_042_383,
            "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912", "Apache-2.0", 1024,
        ),
        WeightsFile(
            "sam-vit-l", _META + "sam_vit_l_0b3195.pth", 1_249_524_607,
            "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622", "Apache-2.0", 1024,
        ),
        WeightsFile(
            "sam-vit-h", _META + "sam_vit_h_4b8939.pth", 2_564_550_879,
            "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e", "Apache-2.0", 1024,
        ),
        WeightsFile(
            "mobile-sam",
            "https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
            40_728_226, "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
            "Apache-2.0", 1024,
        ),
        WeightsFile(
            "sam2.1-hiera-tiny", _META_2 + "sam2.1_hiera_tiny.pt", 156_008_466,
            "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69", "Apache-2.0", 1024,
        ),
        WeightsFile(
            "sam2.1-hiera-small", _META_2 + "sam2.1_hiera_small.pt", 184_416_285,
            "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38", "Apache-2.0", 1024,
        ),
        WeightsFile(
            "sam2.1-hiera-base-plus", _META_2 + "sam2.1_hiera_base_plus.pt", 323_606_802,
            "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5", "Apache-2.0", 1024,
        ),
        WeightsFile(
            "sam2.1-hiera-large", _META_2 + "sam2.1_hiera_large.pt", 898_083_611,
            "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318", "Apache-2.0", 1024,
        ),
    )
}  # fmt: skip


def published(name: str) -> WeightsFile:
    """The published weights of a model.

    Raises:
        ModelError: none are known under that name.
    """
    if name not in PUBLISHED:
        raise ModelError(
            f"Model {name!r}: no published weights are known (expected {', '.join(PUBLISHED)}). "
            "See `geosam models list`."
        )
    return PUBLISHED[name]


def state(file: WeightsFile, progress: Progress | None = None) -> State:
    """Whether a file is here and whole; reads all of it.

    Args:
        file: which one.
        progress: called with (done, total) bytes.
    """
    if not file.path.exists():
        return "absent"
    whole = file.path.stat().st_size == file.size
    return "ok" if whole and sha256(file.path, progress) == file.sha256 else "damaged"


def sha256(path: Path, progress: Progress | None = None) -> str:
    """The hash of a file, in hexadecimal; `progress` is called with (done, total) bytes."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            done += len(block)
            if progress:
                progress(done, total)
    return digest.hexdigest()


def names(chosen: Iterable[str]) -> list[WeightsFile]:
    """The files of the models chosen, or of all that are here if none is.

    Raises:
        ModelError: there is no model of such a name.
    """
    return [published(name) for name in chosen] or [
        file for file in PUBLISHED.values() if file.path.exists()
    ]
