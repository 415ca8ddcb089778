"""`clipmill run` and `status`: what is pending, through an engine, into the catalog; progress and reports."""
