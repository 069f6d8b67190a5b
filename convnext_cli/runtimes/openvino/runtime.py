"""OpenVINO without its converter.

``import openvino`` brings in the model converter where that can be imported, and with it a telemetry client: most
of the time of the import, for nothing that is used here. The package is made to go without it.
"""

from __future__ import annotations

import sys

_CONVERTER = "openvino.tools.ovc"

if "openvino" in sys.modules:
    import openvino as ov
else:
    sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # Python's own way to say that it is not there
    try:
        import openvino as ov
    finally:
        del sys.modules[_CONVERTER]

    def _later(name: str) -> object:
        # for others in this process who want the converter
        if name != "convert_model":
            raise AttributeError(f"module 'openvino' has no attribute {name!r}")
        from openvino.tools.ovc import convert_model

        return convert_model

    ov.__getattr__ = _later

from openvino import opset15 as op  # noqa: E402 - behind the import above

__all__ = ["op", "ov"]
