"""A phrase to a mask: boxes by Grounding DINO, masks in them by SAM."""
