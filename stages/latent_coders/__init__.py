"""VAEs behind one interface: our own and published ones. Of other rooms, imports pretrained; torch only to load."""
