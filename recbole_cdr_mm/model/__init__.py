"""The models, one file each; a model is found by its file."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from recbole_cdr_mm.model.cross_domain_recommender import CrossDomainRecommender


@functools.cache
def find_models() -> dict[str, type[CrossDomainRecommender]]:
    """Find the models of this package.

    Returns:
        The model classes by name: each module `<name in lower case>.py` here holds one.
    """
    found = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for name, value in vars(module).items():
            if (
                name.lower() == info.name
                and isinstance(value, type)
                and issubclass(value, CrossDomainRecommender)
            ):
                found[name] = value
    return dict(sorted(found.items()))
