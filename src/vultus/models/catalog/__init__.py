"""Catalogue of the pretrained networks, as frozen data: origin, licence, digests, input, published accuracy."""
