"""Property files of recbole-cdr-mm: the defaults, and the schema of every key."""
