"""What every test may rely on."""

import os
import shutil
import signal
import tempfile

from hypothesis import settings

# how long an example takes depends on what else the machine does
settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")

# what clients leave in the folder of temporary files goes with the tests; pytest keeps its own beside it, for a look
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
_SCRATCH = tempfile.mkdtemp(prefix="st-")
os.environ["TMPDIR"] = tempfile.tempdir = _SCRATCH

# a shell that starts the tests in the background has them ignore Ctrl-C, and the programs they start would as well
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    shutil.rmtree(_SCRATCH, ignore_errors=True)
