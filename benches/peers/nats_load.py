"""Publishes messages to a JetStream stream over many connections, each waiting for its acknowledgement, for so many seconds.

Speaks the NATS protocol itself (it is text), so that no client library is measured. Prints how many were acknowledged.
"""

import asyncio
import json
import os
import sys
import time

STREAM = {
    "name": "INBOX",
    "subjects": ["inbox"],
    "storage": "file",
    "retention": "limits",
    # Duplicates are found by id for as long as the run lasts.
    "duplicate_window": 600_000_000_000,
}


class Connection:
    def __init__(self, reader, writer, number):
        self.reader, self.writer, self.reply = reader, writer, f"_R.{number}"

    @classmethod
    async def open(cls, port, number):
        connection = cls(*await asyncio.open_connection("127.0.0.1", port), number)
        await connection.reader.readline()
        options = json.dumps({"verbose": False, "headers": True, "no_responders": True})
        connection.writer.write(f"CONNECT {options}\r\nSUB {connection.reply} 1\r\n".encode())
        return connection

    async def request(self, subject, payload, headers=b""):
        if headers:
            head = f"HPUB {subject} {self.reply} {len(headers)} {len(headers) + len(payload)}\r\n"
        else:
            head = f"PUB {subject} {self.reply} {len(payload)}\r\n"
        self.writer.write(head.encode() + headers + payload + b"\r\n")
        while True:
            line = await self.reader.readline()
            if line.startswith((b"MSG", b"HMSG")):
                length = int(line.split()[-1])
                return (await self.reader.readexactly(length + 2))[:-2]
            if line.startswith(b"PING"):
                self.writer.write(b"PONG\r\n")
            elif not line or line.startswith(b"-ERR"):
                raise ConnectionError(line.decode())


async def publish(connection, payload, until):
    count = 0
    while time.monotonic() < until:
        headers = b"NATS/1.0\r\nNats-Msg-Id: " + os.urandom(16).hex().encode() + b"\r\n\r\n"
        answer = json.loads(await connection.request("inbox", payload, headers))
        if "seq" not in answer or answer.get("duplicate"):
            raise RuntimeError(answer)
        count += 1
    return count


async def main(port, connections, seconds, payload_bytes):
    open_ones = [await Connection.open(port, number) for number in range(connections)]
    answer = json.loads(await open_ones[0].request("$JS.API.STREAM.CREATE.INBOX", json.dumps(STREAM).encode()))
    if "error" in answer and "already in use" not in str(answer["error"]):
        raise RuntimeError(answer["error"])
    began, payload = time.monotonic(), b"x" * payload_bytes
    counts = await asyncio.gather(*(publish(one, payload, began + seconds) for one in open_ones))
    print(json.dumps({"messages": sum(counts), "seconds": time.monotonic() - began}))


asyncio.run(main(*map(int, sys.argv[1:])))
