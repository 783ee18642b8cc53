"""Hyperparameter search on the validation users: `python -m recbole_cdr_mm.tune`."""
