"""Images: headers, decoding within a pixel budget, geometry, alignment, crops."""
