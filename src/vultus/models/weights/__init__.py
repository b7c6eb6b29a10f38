"""Weights: where they come from, their digests, and the graphs built from them."""
