"""Class tables and data sets: exporters and importers."""
