"""Running a pytest item in a sandbox: the child's side, the parent's side, and what both need of pytest."""
