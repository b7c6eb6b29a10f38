"""Frees the database's files of what was erased: rewrites tables, turns over the write-ahead log, searches files."""
