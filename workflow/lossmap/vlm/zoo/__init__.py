"""The miniature models: how they are built, trained by stages, tested and described."""
