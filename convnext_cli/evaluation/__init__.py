"""What ``convnext evaluate`` measures: a model's answers against the classes of labelled photos."""
