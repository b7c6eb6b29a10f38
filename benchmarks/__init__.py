"""Questions about speed, one file each; `python -m benchmarks` answers them."""
