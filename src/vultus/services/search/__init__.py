"""Search of a collection: what is asked, the candidate index beside PostgreSQL, and the watch over what it loses."""
