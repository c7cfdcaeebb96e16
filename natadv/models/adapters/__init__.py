"""One module per kind of checkpoint: each feeds it as it was trained, or refuses it."""
