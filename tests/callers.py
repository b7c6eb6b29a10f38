"""Who calls the services in tests."""

from vultus.domain import Principal

CALLER = Principal.from_process("test")
"""May do everything, everywhere."""
