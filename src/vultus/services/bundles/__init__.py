"""Bundles: a collection as a signed file, on its way to another installation (docs/bundle.md)."""
