"""Labels as keywords of photo managers: XMP in sidecars and in photos."""
