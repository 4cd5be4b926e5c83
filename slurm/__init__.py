"""Launching runs through submitit, on this machine or on a cluster."""
