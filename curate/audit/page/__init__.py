"""index.html of an audit: one self-contained page without scripts. It reads figures and pictures, never the catalog."""
