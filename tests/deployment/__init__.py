"""The configurations of docs/deployment/, run by their programs."""
