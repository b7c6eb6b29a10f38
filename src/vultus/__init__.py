"""Vultus: self-hosted face recognition with consent and complete erasure."""

import os
import sys
from importlib.metadata import version

__version__ = version("vultus")

# From 1.29 on ONNX Runtime reports to its maker unless this is set before it is first imported; it decides once and for
# the whole process. Every command, server, worker, benchmark and test imports this package before anything else.
TELEMETRY_SWITCH = "ORT_DISABLE_TELEMETRY"
IS_TELEMETRY_OFF = os.environ.get(TELEMETRY_SWITCH) == "1" or "onnxruntime" not in sys.modules
"""Whether ONNX Runtime cannot have begun to report; it loads no network otherwise."""

os.environ[TELEMETRY_SWITCH] = "1"

# The libraries under NumPy, SciPy and FAISS start a thread a core when they are first imported. Photos are analysed on
# as many threads as there are cores already; more would only compete with them.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
