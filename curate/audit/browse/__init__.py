"""`clipmill browse`: a local page to look at clips. A server on the loopback asks a child process that holds the data.

The child (`worker.py`) has a DuckDB that can read the catalog and nothing else; the server (`server.py`) passes on its
answers, and the spans of films as MP4 (`spans.py`). Nothing here writes.
"""
