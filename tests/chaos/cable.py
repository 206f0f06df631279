"""A bad cable between two network interfaces: cable.py HOST HUB, then delay and jitter in milliseconds and loss in
percent of what comes from the host, and the same of what goes to it.

In place of `tc netem`, which many kernels are built without.
"""

import heapq
import random
import select
import socket
import sys
import time

# packet(7). The virtio header keeps checksums that are still to be made, and packets that are still to be cut.
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
ETH_P_ALL = 3
LARGEST = 70_000


def interface(name):
    it = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    it.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    it.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    it.bind((name, 0))
    it.setblocking(False)
    return it


def receive(source, direction, waiting):
    to, delay, jitter, loss = direction
    while True:
        try:
            packet = source.recv(LARGEST)
        except OSError:
            return
        if random.random() * 100 >= loss:
            at = time.monotonic() + (delay + random.uniform(-jitter, jitter)) / 1000
            heapq.heappush(waiting, (at, id(packet), to, packet))


def main():
    host, hub = (interface(name) for name in sys.argv[1:3])
    numbers = [float(word) for word in sys.argv[3:]]
    directions = {host: (hub, *numbers[:3]), hub: (host, *numbers[3:])}
    waiting = []
    print("ready", flush=True)
    while True:
        pause = max(0, waiting[0][0] - time.monotonic()) if waiting else None
        for source in select.select([host, hub], [], [], pause)[0]:
            receive(source, directions[source], waiting)
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, to, packet = heapq.heappop(waiting)
            try:
                to.send(packet)
            except OSError:
                pass  # As if it were lost.


main()
