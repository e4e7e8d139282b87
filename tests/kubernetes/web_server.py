"""A session's web client, run in a pod: tells what it was asked, and echoes WebSockets."""

import asyncio
import base64
import hashlib

_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CLOSE = 8


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request, *lines = head.split("\r\n")
    told = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    if told.get("upgrade", "").lower() == "websocket":
        digest = hashlib.sha1(told["sec-websocket-key"].encode() + _ACCEPT).digest()
        accept = base64.b64encode(digest).decode()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        await _echo(reader, writer)
    else:
        body = "\n".join([request, *lines]).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n"
            + f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
    await writer.drain()
    writer.close()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Frames of fewer than 126 bytes come back; the closing one is the last."""
    kind = 0
    while kind & 15 != _CLOSE:
        kind, size = await reader.readexactly(2)
        mask = await reader.readexactly(4)
        masked = await reader.readexactly(size & 127)
        words = bytes(byte ^ mask[at % 4] for at, byte in enumerate(masked))
        writer.write(bytes([kind, len(words)]) + words)


async def main() -> None:
    async with await asyncio.start_server(serve, "0.0.0.0", 8000) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
