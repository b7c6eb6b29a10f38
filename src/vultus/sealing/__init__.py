"""Keys outside the database: a key ring wraps the keys that wrap one key per person, which seals what is theirs."""
