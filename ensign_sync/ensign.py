"""The client and the decorators at the import path of pyensign; re-exports only."""

from .client import Ensign
from .decorators import authenticate, publisher, subscriber

__all__ = ["Ensign", "authenticate", "publisher", "subscriber"]
