"""The miniature world: data sets in published formats, and models of real architectures, trained on them."""
