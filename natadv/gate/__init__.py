"""Thresholds, judgement, baseline and calibration: starts without torch and without pytest."""
