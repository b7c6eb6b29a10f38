"""People: persons, their consents, and erasure."""
