"""Online model migration: dual write, backfill, shadow comparison, cutover, rollback."""
