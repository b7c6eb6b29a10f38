"""Business rules: registration, recognition, verification, consent, erasure, access."""
