"""Pretrained networks: pixels in, vectors out. Nothing here knows a person."""
