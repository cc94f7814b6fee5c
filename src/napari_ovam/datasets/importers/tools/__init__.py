"""Annotation files of other tools: CVAT, LabelMe, Label Studio, Datumaro."""
