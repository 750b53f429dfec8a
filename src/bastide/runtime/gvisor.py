"""gVisor: a kernel in user space between the container and the host's, by `runsc` under conmon."""

from __future__ import annotations

from bastide.model.container import Isolation
from bastide.runtime.oci import OCI


class Runsc(OCI, name="runsc", isolation=Isolation.GVISOR):
    """runsc has the OCI runtime command line."""

    package = "runsc"
    console_socket = False
