"""Which jet stands at a position of a run: compositions, shuffles, and the order made of them."""
