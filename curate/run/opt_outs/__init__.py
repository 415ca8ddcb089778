"""Opt-out signals of sources: robots.txt, TDMRep, AIPREF and RSL from a folder of fetched files, C2PA from films."""
