"""The product's rules: registration, recognition, verification, consent, erasure, access."""
