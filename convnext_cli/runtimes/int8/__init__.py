"""int8: calibration, rounding, and the comparison with float32."""
