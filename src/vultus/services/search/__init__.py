"""Search of a collection: queries, the candidate index, the HNSW graph, and the recall monitor."""
