"""Questions to the database in the product's words; domain values out, never rows, and no commit."""
