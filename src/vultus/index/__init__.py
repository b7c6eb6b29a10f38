"""Candidate search: faces that may be nearest to a probe, from one-bit codes in memory.

Derived from the database and disposable: its candidates are rescored in the database.
"""
