"""What the processes of the executor send each other: layouts and numbers, declared once.

    trainer --JOB + job--> child        (on the slot's socket)
    child --START, HEADER + frame--> zygote    (on the result pipe; a frame is one letter RESULT_* and a body)
    zygote --REPLY + text, frame, stdout, stderr--> trainer

All numbers are little-endian and unaligned. Imports the standard library only: the trainer, the zygote and every child
load it.
"""

from __future__ import annotations

import struct

CONTROL_FD = 4  # the slot's socket, in the zygote and in a child until it has its job
LIFELINE_FD = 5  # in a zygote: a pipe that nobody writes to, and that ends when the trainer lets go of it or dies
RESULT_FD = 3  # the result pipe of a child

HEADER = struct.Struct("<I")  # the length of what follows, bytes
JOB = struct.Struct("<ddQQQI")  # wall s, cpu s, memory bytes, output bytes, result bytes; length of what follows
START = struct.Struct("<cddQQQd")  # START_MARK, the five limits, when the child had its job (monotonic clock, s)
START_MARK = b"S"
# A verdict (below), wall s, cpu s, peak resident bytes, then the lengths of text, frame, stdout and stderr.
REPLY = struct.Struct("<BddQIIII")

# The verdicts of a reply.
HELLO = 0  # the slot is ready; the text says which layers hold
LOST = 1  # a child that ended before its program began
FRAME = 2  # a whole frame, which says more
ENDED = 3  # a child that ended; never sent, the zygote finds out how
TIMEOUT, MEMORY, OUTPUT, KILLED, EXITED, FORBIDDEN, BAD_RESULT = range(4, 11)

# The first letter of a frame. Only RESULT_OK carries values, each after a HEADER; the others carry a text.
RESULT_OK, RESULT_EXCEPTION, RESULT_MEMORY, RESULT_EXITED, RESULT_FORBIDDEN, RESULT_BAD, RESULT_FAILED = b"oxmefbt"
