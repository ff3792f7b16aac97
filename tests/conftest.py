"""What every test may rely on."""

import signal

from hypothesis import settings

# how long an example takes depends on what else the machine does
settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")

# a shell that starts the tests in the background has them ignore Ctrl-C, and the programs they start would as well
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
