"""Workers: the queue of photos, and the threads or processes that analyse them."""
