"""The tables and figures of a study, one file each: see `lossmap.study.exhibit`."""
