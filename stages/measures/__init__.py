"""The cheap signals of the decode pass.

observations = Observations(["motion", "sharpness"])
observations.observe(sample)                # each sample of the source, in order
row = observations.close(span, facts)       # each clip, in order: {'motion': 3.4, 'sharpness': 210.0}
"""
