"""TransNet V2 as a detector of cuts: finds and loads its weights, and runs it over a stream of pictures."""
