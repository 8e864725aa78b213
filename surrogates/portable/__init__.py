"""Trained models as files that other programs call: normalisation and the forecast of all times inside."""
