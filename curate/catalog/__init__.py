"""Delta tables and what is asked of them: schema, ledger, lease, views, gates, compaction. Imports no other room."""
