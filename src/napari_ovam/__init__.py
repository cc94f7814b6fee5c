"""Open-vocabulary attention maps for semi-automatic mask annotation."""

__version__ = "0.1.0"
