"""The tabs of the pages, and the panels inside them."""
