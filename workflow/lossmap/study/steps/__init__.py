"""The steps: the only place that touches files. One module, one rule, one command line, one name."""
