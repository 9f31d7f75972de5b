"""Settings of the rules of readers."""

READERS = config["readers"]
READ_TASK = task_of(config, READERS["train"])
