"""Pairs of domains: loading, the cold-start split, histories and features."""
