"""Time, and passing things between threads."""
