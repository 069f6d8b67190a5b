"""torch: running a network, and exporting it as TorchScript, torch.export and AOTInductor."""
