"""Why a model answers as it does: where it looks, which heads and latents matter."""
