"""Pipelines: loading, recording, generating, looking at a picture."""
