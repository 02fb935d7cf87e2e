"""Acts as a Python that runs vLLM's server: `stub_vllm.py -m vllm... --port N`, standard library only.

The environment variable STUB says how: {"folder": where it notes what happens, "mode": ..., "after": answers
until it misbehaves}. Misbehaviour is for the first server of a folder, but for modes that end in `-always`.
"""

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOLD = json.loads(os.environ["STUB"])
FOLDER, MODE, AFTER = Path(TOLD["folder"]), TOLD.get("mode", ""), TOLD.get("after", 5)
ARGS = sys.argv[1:]


def option(name):
    return ARGS[ARGS.index(name) + 1]


def note(name, value):
    with (FOLDER / name).open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")


starts = len((FOLDER / "starts").read_text().splitlines()) if (FOLDER / "starts").exists() else 0
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
note("starts", {"pids": [os.getpid(), worker.pid], "args": ARGS, "env": dict(os.environ)})
bad = MODE if starts == 0 or MODE.endswith("-always") else ""

where = "(APIServer pid=1) INFO 01-01 00:00:00 [api_server.py:1]"
print(where, "key is", os.environ["VLLM_API_KEY"], flush=True)
if bad.startswith("crash"):
    print("Traceback (most recent call last):\n" + TOLD["says"], flush=True)
    sys.exit(1)
if bad.startswith("taken"):
    print("OSError: [Errno 98] Address already in use", flush=True)
    sys.exit(1)
ready = time.monotonic() + (TOLD.get("slow_s", 0) if bad.startswith("slow") else 0)
answered = 0
turn = threading.Lock()
hang = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def tell(self, status, body):
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_GET(self):
        if self.path == "/health":
            self.tell(200 if time.monotonic() >= ready else 503, b"")
        elif self.path == "/metrics":
            made = f'vllm:generation_tokens_total{{engine="0"}} {answered}\n'
            self.tell(200, made.encode())
        elif self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
            self.tell(401, {"error": "Unauthorized"})
        else:
            self.tell(200, {"data": [{"id": option("--served-model-name"), "max_model_len": 4096}]})

    def do_POST(self):
        global answered
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        if self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
            return self.tell(401, {"error": "Unauthorized"})
        with turn:
            answered += 1
            if bad.startswith("die") and answered > AFTER:
                os._exit(9)
            stalled = bad.startswith("stall") and answered > AFTER
            answered -= stalled
        if stalled:
            hang.wait(60)
        note("answers", text)
        message = {"role": "assistant", "content": text.upper()}
        said = {"message": message, "finish_reason": "stop", "index": 0}
        usage = {"prompt_tokens": 5, "completion_tokens": 1}
        self.tell(200, {"model": body["model"], "choices": [said], "usage": usage})


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


Server((option("--host"), int(option("--port"))), Handler).serve_forever()
