"""Recognition: who is in a photo (1:N), whether it is a given person (1:1), and how a verdict is put together."""
