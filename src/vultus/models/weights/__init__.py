"""Weights: their sources and digests, and the graphs built from them."""
