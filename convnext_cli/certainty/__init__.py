"""The limits of a model's knowledge: answers that hold with a measured precision, and photos that are out of scope.

Everything here is NumPy on logits and pooled features; nothing opens a file or runs a network.
"""
