"""Raw files of any source to domains: reading, checking, filtering, writing."""
