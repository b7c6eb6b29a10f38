"""Statistics of comparisons: error rates with intervals, all pairs of a gallery, groups, calibrated probability."""
