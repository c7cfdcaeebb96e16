"""A verdict that travels: its entries in gate.json, evidence.zip, verification, attestation."""
