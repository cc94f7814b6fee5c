"""From attention maps to labels."""
