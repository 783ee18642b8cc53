"""Layers and closed-form solvers: tensors in, tensors out; no config, no data set, no file."""
