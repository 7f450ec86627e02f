"""Page tokens of the embedded server."""
