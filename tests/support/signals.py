# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Signals of a test's programs as a person's shell would leave them."""
import signal


def restore():
    """A shell that runs the tests in the background, or nohup, has SIGINT or SIGHUP ignored, and programs inherit that.
    From here on those that this process starts get the default actions."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
