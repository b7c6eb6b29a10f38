"""Pretrained networks: pixels in, vectors out. This package has no notion of persons."""
