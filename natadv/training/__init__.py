"""How the heads come about: on a frozen tower, from packed data, the same bytes each time."""
