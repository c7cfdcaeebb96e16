"""A verdict that travels: gate.json, evidence.zip, verification, attestation, baselines."""
