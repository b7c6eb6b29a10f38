"""Vultus: self-hosted face recognition with consent and complete erasure."""

from importlib.metadata import version

__version__ = version("vultus")
