"""Seeded synthetic heads in HU, written as real DICOM and NIfTI files."""
