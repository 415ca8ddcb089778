"""Documents of an audit: Croissant, datasheet and EU summary. They read figures and a settings file, never a catalog."""
