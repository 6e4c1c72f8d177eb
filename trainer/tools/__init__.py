"""Work on adapter files."""
