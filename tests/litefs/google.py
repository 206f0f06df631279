#!/usr/bin/env python3
"""Google's XML API, as object_store speaks it, in front of fake-gcs-server, which has its JSON API and asks for no credentials.

    google.py PORT BEHIND ROOT ACCOUNT.json     # BEHIND: fake-gcs-server's port

Takes a self-signed token of the account's key, or one that it gave as the metadata server of an instance. Lists, reads and
deletes are fake-gcs-server's own. A PUT becomes an upload with its precondition; parts are objects that are composed.
"""
import base64, hashlib, http.client, http.server, json, os, pathlib, secrets, signal, socket, subprocess, sys, tempfile, time, urllib.parse
import xml.etree.ElementTree

PARTS = ".parts/"  # objects that no listing of a prefix finds
GIVEN = secrets.token_hex()  # the instance's token


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Account:
    """Of a service, by its key file."""

    def __init__(self, file):
        account = json.loads(file.read_text())
        self.email, self.known = account["client_email"], {}
        self.public = subprocess.run(["openssl", "pkey", "-pubout"], input=account["private_key"].encode(), capture_output=True, check=True).stdout

    def signed(self, token):
        """Whether it is this account's token, for buckets, and still good."""
        if token not in self.known:
            self.known[token] = self.expiry(token)
        return self.known[token] > time.time()

    def expiry(self, token):
        try:
            signed, signature = token.rsplit(".", 1)
            claims = json.loads(decoded(signed.split(".")[1]))
            with tempfile.NamedTemporaryFile() as public, tempfile.NamedTemporaryFile() as proof:
                pathlib.Path(public.name).write_bytes(self.public)
                pathlib.Path(proof.name).write_bytes(decoded(signature))
                verify = ["openssl", "dgst", "-sha256", "-verify", public.name, "-signature", proof.name]
                done = subprocess.run(verify, input=signed.encode(), capture_output=True)
            may = claims["scope"].endswith(("cloud-platform", "devstorage.read_write", "devstorage.full_control"))
            good = not done.returncode and claims["iss"] == self.email and may
            return claims["exp"] if good else 0
        except (ValueError, KeyError, IndexError):
            return 0


class Front(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    account, port = None, None

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers={}):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status, code):
        self.answer(status, f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>".encode())

    def ask(self, method, path, body=b"", **headers):
        """fake-gcs-server's status, headers and body."""
        inner = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        inner.request(method, path, body, headers)
        with inner.getresponse() as found:
            return found.status, found.headers, found.read()

    def upload(self, name, body, **query):
        query |= {"uploadType": "media", "name": name}
        path = f"/upload/storage/v1/b/bucket/o?{urllib.parse.urlencode(query)}"
        status, _, found = self.ask("POST", path, body, **{"Content-Type": "application/octet-stream"})
        return status, json.loads(found) if status == 200 else {}

    def handle_request(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        if path == "/computeMetadata/v1/instance/service-accounts/default/token" and self.headers["Metadata-Flavor"] == "Google":
            return self.answer(200, json.dumps({"access_token": GIVEN, "expires_in": 3600, "token_type": "Bearer"}).encode())
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token != GIVEN and not self.account.signed(token):
            return self.refuse(401, "AuthenticationRequired")
        bucket, _, name = path.removeprefix("/").partition("/")
        if bucket != "bucket":
            return self.refuse(404, "NoSuchBucket")
        query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        if "uploads" in query or "uploadId" in query:
            return self.in_parts(urllib.parse.unquote(name), query, body)
        if self.command == "PUT":
            return self.put(urllib.parse.unquote(name), body)
        status, headers, found = self.ask(self.command, self.path, Host=f"127.0.0.1:{self.port}")
        kept = ("ETag", "Last-Modified", "X-Goog-Generation", "Content-Type", "Content-Length")
        self.answer(status, found, {each: headers[each] for each in kept if each in headers})

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_request

    def put(self, name, body):
        there = self.headers.get("x-goog-if-generation-match")
        status, made = self.upload(name, body, **({"ifGenerationMatch": there} if there else {}))
        if status != 200:
            return self.refuse(status, "PreconditionFailed" if status == 412 else "InternalError")
        self.answer(200, headers={"ETag": f'"{made["etag"]}"', "x-goog-generation": made["generation"]})

    def in_parts(self, name, query, body):
        if "uploads" in query:
            begun = f"<InitiateMultipartUploadResult><Bucket>bucket</Bucket><Key>{name}</Key><UploadId>{secrets.token_hex(8)}</UploadId></InitiateMultipartUploadResult>"
            return self.answer(200, begun.encode())
        upload = PARTS + query["uploadId"]
        if self.command == "PUT":
            status, _ = self.upload(f"{upload}/{query['partNumber']}", body)
            return self.answer(status, headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})
        if self.command == "DELETE":
            return self.answer(204)
        self.compose(name, upload, xml.etree.ElementTree.fromstring(body))

    def compose(self, name, upload, whole):
        parts = [f"{upload}/{part.findtext('PartNumber')}" for part in whole.iter("Part")]
        asked = json.dumps({"sourceObjects": [{"name": part} for part in parts], "destination": {"contentType": "application/octet-stream"}})
        path = f"/storage/v1/b/bucket/o/{urllib.parse.quote(name, safe='')}/compose"
        status, _, made = self.ask("POST", path, asked.encode(), **{"Content-Type": "application/json"})
        if status != 200:
            return self.refuse(400, "InvalidPart")
        made = json.loads(made)
        done = f"<CompleteMultipartUploadResult><Bucket>bucket</Bucket><Key>{name}</Key><ETag>\"{made['etag']}\"</ETag></CompleteMultipartUploadResult>"
        self.answer(200, done.encode(), {"x-goog-generation": made["generation"]})


def main():
    port, behind, root, account = sys.argv[1:]
    Front.account, Front.port = Account(pathlib.Path(account)), int(behind)
    args = [os.environ["FAKE_GCS_BIN"], "-scheme", "http", "-host", "127.0.0.1", "-port", behind, "-public-host", f"127.0.0.1:{behind}"]
    child = subprocess.Popen([*args, "-backend", "filesystem", "-filesystem-root", root], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        while child.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", Front.port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Front)
        server.daemon_threads = True
        server.serve_forever()
    finally:
        child.terminate()
        child.wait()


main()
