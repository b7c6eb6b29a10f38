"""Backups of the database: written, restored, and made by the server by itself."""
