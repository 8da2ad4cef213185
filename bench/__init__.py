"""Benchmarks and experiments whose results are committed under ``bench/results``."""
