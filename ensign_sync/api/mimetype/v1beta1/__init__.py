"""Content types of event data, version v1beta1."""
