"""Content types of event data."""
