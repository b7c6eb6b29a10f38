"""The template store: the only code that reads, writes or compares embeddings in the database."""
