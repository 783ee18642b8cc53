"""Raw files from the servers of their authors."""
