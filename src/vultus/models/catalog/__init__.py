"""The known networks as data: weights, licences, papers, inputs; and the packs that are made of them."""
