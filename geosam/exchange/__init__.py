"""Training sets for other programs, and labels from them."""
