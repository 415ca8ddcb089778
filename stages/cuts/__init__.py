"""Scene cuts: hard cuts, fades, and the detectors of PySceneDetect, from downscaled frames."""
