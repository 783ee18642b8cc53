"""Texts and images of items to feature stores."""
