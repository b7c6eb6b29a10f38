"""Questions about speed, one file each; `python -m benchmarks` answers them."""

import vultus  # noqa: F401  before NumPy and ONNX Runtime: one thread of the BLAS library, no telemetry, as the service
