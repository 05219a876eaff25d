"""Sandboxes that an OCI runtime makes: the plan as a bundle, and the runtime that runs it."""
