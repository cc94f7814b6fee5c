"""Which models there are, where, how large; getting them."""
