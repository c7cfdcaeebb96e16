"""Heads that are trained on a frozen tower: a decoder for masks, and MCAN for answers."""
