"""Routes: declare, delegate, translate."""
