"""How each library names the tensors of a ConvNeXt: one file a layout."""
