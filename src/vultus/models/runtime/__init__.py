"""Runtimes of the networks: ONNX Runtime or OpenVINO, with their devices, precisions and threads."""

from vultus.models.runtime.onnx_session import OnnxSession
from vultus.models.runtime.session import NetworkSession, SessionOpener
from vultus.models.runtime.threads import count_usable_cores, limit_threads, use_all_cores

__all__ = ["NetworkSession", "OnnxSession", "SessionOpener", "count_usable_cores", "limit_threads", "use_all_cores"]
