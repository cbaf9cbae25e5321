"""From scans on disk to batches: manifests, DICOM, NIfTI, geometry, the cache, the DataModule."""
