"""Runledger: submit an action over HTTP, watch its run to the end. One PostgreSQL holds everything."""

__version__ = "0.1.0"
