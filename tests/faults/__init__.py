"""Fault, fuzz and payload scenarios: the long forms run from here, short forms of the same code run under pytest."""
