"""Windows of clips: the frames that are encoded, in which shape, and their pixels. Of other rooms, imports decode."""
