"""Cross-domain recommendation with item text for RecBole: MetaMMCDR and its baselines."""

__version__ = "0.1.0"
