"""Windows, crops and intensity changes for whole batches, on the device."""
