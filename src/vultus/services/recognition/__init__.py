"""Recognition: identification (1:N), verification (1:1), and their verdicts."""
