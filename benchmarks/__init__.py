"""Benchmarks of speed, one per file; `python -m benchmarks` runs them."""

import vultus  # noqa: F401  before NumPy and ONNX Runtime: one thread of the BLAS library, no telemetry, as the service
