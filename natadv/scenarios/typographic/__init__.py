"""A wrong word in the picture: overlays, the published recipes that draw them, and their twins."""
