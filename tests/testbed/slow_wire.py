# SPDX-License-Identifier: Apache-2.0
"""slow_wire.py MS NEAR NEAR_BRIDGE FAR FAR_BRIDGE: two TAP devices on two bridges, and every frame between them held back
by MS milliseconds. For kernels without netem. A TAP device has no offloads, so frames arrive whole and checked."""
import collections
import fcntl
import os
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


def tap(name, bridge):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", name, "master", bridge, "up"], check=True)
    return fd


def main():
    delay = float(sys.argv[1]) / 1000
    near, far = tap(sys.argv[2], sys.argv[3]), tap(sys.argv[4], sys.argv[5])
    queue = collections.deque()  # (when, where to, frame)
    while True:
        wait = max(0.0, queue[0][0] - time.monotonic()) if queue else None
        ready, _, _ = select.select([near, far], [], [], wait)
        for fd in ready:
            try:
                while True:
                    queue.append((time.monotonic() + delay, far if fd == near else near, os.read(fd, 65536)))
            except BlockingIOError:
                pass
        while queue and queue[0][0] <= time.monotonic():
            _, to, frame = queue.popleft()
            try:
                os.write(to, frame)
            except OSError:
                pass


main()
