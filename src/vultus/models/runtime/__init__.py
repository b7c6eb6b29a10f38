"""What runs the networks: ONNX Runtime or OpenVINO, on which device, in which precision, on how many threads."""

from vultus.models.runtime.onnx_session import OnnxSession
from vultus.models.runtime.session import Opener, Session
from vultus.models.runtime.threads import all_cores, limit_threads, usable_cores

__all__ = ["OnnxSession", "Opener", "Session", "all_cores", "limit_threads", "usable_cores"]
