"""Lets PyCUDA load on a driver with a part of the driver API: what is missing ends the process only when it is called."""

import os
import sys

sys.setdlopenflags(os.RTLD_LAZY)
