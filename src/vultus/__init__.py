"""Vultus: self-hosted face recognition with consent and complete erasure."""

import os
from importlib.metadata import version

__version__ = version("vultus")

# The libraries under NumPy, SciPy and FAISS start a thread a core when they are first imported. Photos are analysed on
# as many threads as there are cores already; more would only compete with them.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
