"""Candidate search: which faces could be closest to a probe, from one-bit codes held in memory.

Derived from the database and disposable: what it proposes is re-scored there.
"""
