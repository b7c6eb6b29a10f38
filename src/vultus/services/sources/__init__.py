"""Sources: which are watched, by whom, and what becomes of their frames."""
