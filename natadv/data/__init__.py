"""Packed, versioned datasets: card, writer, reader, importers."""
