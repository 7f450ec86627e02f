"""The client at the import path of pyensign; re-exports only."""

from .client import Ensign

__all__ = ["Ensign"]
