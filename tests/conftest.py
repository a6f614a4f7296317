import os

import torch
from hypothesis import settings

settings.register_profile("geosam", deadline=None)  # laws, not stopwatches
settings.load_profile("geosam")

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
