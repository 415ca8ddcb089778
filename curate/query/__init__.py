"""Questions to a catalog: SQL, search by meaning, contact sheets."""
