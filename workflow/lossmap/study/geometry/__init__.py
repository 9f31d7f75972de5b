"""How the two sides of the connector lie to each other: what measure_geometry measures, a file for each part."""
