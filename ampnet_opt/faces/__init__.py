"""Pictures of faces, their five landmarks and their labels."""
