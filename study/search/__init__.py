"""Search spaces, and the searchers that propose points of them."""
