"""Raw files to atomic files to features. Imports no RecBole, and no torch before it encodes."""
