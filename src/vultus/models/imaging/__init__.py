"""Images: headers, decoding within a memory budget, geometry, alignment, crops."""
