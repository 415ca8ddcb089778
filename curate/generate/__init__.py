"""`clipmill sample`: video from a trained run, and the files and sheets that show it."""
