"""One module per kind of checkpoint: fed as it was trained, or refused."""
