"""Admission: what the cluster itself adds to objects or refuses, and what webhooks and policies do; see `chain`."""
