"""The demo: short films drawn with known truth, and the whole way of curation run on them."""
