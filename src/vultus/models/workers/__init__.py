"""The admission queue of photos, and the worker threads or processes that analyse them."""
