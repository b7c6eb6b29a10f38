"""Utilities without domain logic."""
