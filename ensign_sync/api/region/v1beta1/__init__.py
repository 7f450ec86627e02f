"""Regions in which nodes run, version v1beta1."""
