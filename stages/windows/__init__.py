"""Windows of clips: what is cut out, which shape it takes, and its pixels from children that decode ahead."""
