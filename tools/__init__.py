"""What makes parts of the documentation; nothing of the product."""
