"""Figures of what must hold when things go wrong, one per file; `python -m chaos` measures them."""

import vultus  # noqa: F401  before NumPy and ONNX Runtime: one thread of the BLAS library, no telemetry, as the service
