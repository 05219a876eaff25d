"""Sandboxes: planning one as data, having it built, running a function in it."""
