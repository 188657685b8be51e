"""Run Debian's getmail with one fault of its delivery repaired.

getmail forks for each message that it delivers, and installs its handler for the child's end only
afterwards: on a busy machine a child is sometimes gone before, and getmail waits for it for a minute
and gives up. Waiting for the child itself, here, is all that differs; the POP3 part is untouched.
"""

import os
import runpy
import sys

from getmailcore.baseclasses import ForkingBase


def wait_for_child(self, childpid):
    _, status = os.waitpid(childpid, 0)
    return os.waitstatus_to_exitcode(status)


ForkingBase._prepare_child = lambda self: None
ForkingBase._wait_for_child = wait_for_child
sys.argv[0] = "/usr/bin/getmail"
runpy.run_path("/usr/bin/getmail", run_name="__main__")
