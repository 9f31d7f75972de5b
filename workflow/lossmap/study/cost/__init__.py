"""What a study will cost: disk, memory, hours of a GPU."""
