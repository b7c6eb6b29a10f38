"""The pretrained networks Vultus knows, as frozen data: origin, licence, digests, input, published accuracy."""
