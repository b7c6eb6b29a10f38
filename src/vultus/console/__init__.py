"""The console at `/console`: static files that use the public API, and nothing of this program besides."""
