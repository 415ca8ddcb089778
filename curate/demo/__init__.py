"""`clipmill demo`: short films drawn with known truth, and every step from curation to sampling run on them."""
