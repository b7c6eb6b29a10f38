"""Images: headers, decoding within a budget of pixels, geometry, alignment, crops."""
