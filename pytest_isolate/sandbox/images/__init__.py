"""Images: from a name or a file to directories that an overlay can use as its layers."""
