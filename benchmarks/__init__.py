"""Questions about speed, one file each; `python -m benchmarks` answers them."""

import vultus  # noqa: F401  before NumPy: one thread of its BLAS library, as the service has
