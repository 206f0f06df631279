"""A bare ASGI application: an echoing WebSocket, and over HTTP what it was asked.

WebSocket, any path: sends back every message as it came, text as text and bytes as bytes. Asked
for the text `close 4001` it closes with that code. Of the subprotocols offered it takes the first.
The first message it sends is JSON: the headers and the path of the handshake. With the path
`/refuse` it refuses the handshake.

HTTP, any path: JSON of the request's method, path, query and raw headers, repeated ones apart.
"""

import json


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await echo(scope, receive, send)
    elif scope["type"] == "http":
        await describe(scope, send)
    else:
        raise NotImplementedError(scope["type"])


async def echo(scope, receive, send):
    await receive()  # websocket.connect
    if scope["path"] == "/refuse":
        await send({"type": "websocket.close"})
        return
    subprotocol = next(iter(scope["subprotocols"]), None)
    await send({"type": "websocket.accept", "subprotocol": subprotocol})
    await send({"type": "websocket.send", "text": json.dumps(request_of(scope))})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text is not None and text.startswith("close "):
            await send({"type": "websocket.close", "code": int(text.removeprefix("close "))})
            return
        answer = {"text": text} if text is not None else {"bytes": message["bytes"]}
        await send({"type": "websocket.send", **answer})


async def describe(scope, send):
    body = json.dumps({"method": scope["method"], **request_of(scope)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def request_of(scope):
    return {
        "path": scope["raw_path"].decode("latin-1"),
        "query": scope["query_string"].decode("latin-1"),
        "headers": [[part.decode("latin-1") for part in header] for header in scope["headers"]],
    }
