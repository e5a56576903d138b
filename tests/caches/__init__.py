"""The packed cache of decoded samples."""
