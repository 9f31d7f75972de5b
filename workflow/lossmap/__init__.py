"""Lossmap: what a vision-language model loses at its connector."""
