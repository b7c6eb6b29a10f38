"""Repositories: typed queries that return domain values, never rows, and never commit."""
