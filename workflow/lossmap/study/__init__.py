"""The application: a study's settings, checks, cost, steps and exhibits, on the library."""
