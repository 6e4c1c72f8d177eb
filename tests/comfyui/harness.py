"""Runs a real ComfyUI as a subprocess in a throw-away directory and talks to it over HTTP and its websocket."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from PIL import Image

FOLDERS = (
    "custom_nodes",
    *(f"models/{kind}" for kind in ("checkpoints", "loras", "vae", "embeddings", "hypernetworks")),
    *("input", "output", "temp", "user/default"),
)
# Without these the first page load opens the template browser over the canvas.
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Release.Status": "skipped"}
START_SECONDS = 400
Json = dict[str, Any]


class ComfyError(AssertionError):
    """ComfyUI did not do what the test asked for; the message carries what it said."""


class PromptRejected(ComfyError):
    """The server refused the prompt before running it; `answer` is its whole reply."""

    def __init__(self, answer: Json):
        self.answer = answer
        super().__init__(json.dumps(answer, indent=1, ensure_ascii=False))


@dataclass(frozen=True)
class Event:
    """One websocket message: `kind` is ComfyUI's own type, or "preview" / "text" for its binary messages."""

    kind: str
    data: Json
    image: Image.Image | None = None


@dataclass
class Events:
    """What one client was told so far; safe to read while the server still sends."""

    received: list[Event] = field(default_factory=list)

    def of(self, kind: str) -> list[Event]:
        return [event for event in list(self.received) if event.kind == kind]

    def wait_for(self, kind: str, timeout: float = 60, **expected: Any) -> Event:
        """The first event of this kind whose data holds all expected values."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for event in self.of(kind):
                if all(event.data.get(name) == value for name, value in expected.items()):
                    return event
            time.sleep(0.02)
        seen = sorted({event.kind for event in self.received})
        raise ComfyError(f"no {kind!r} event with {expected} within {timeout:g} s; kinds seen: {seen}")


@dataclass(frozen=True)
class Comfy:
    """A running ComfyUI."""

    url: str
    base: Path
    process: subprocess.Popen[bytes]

    @property
    def log_file(self) -> Path:
        return self.base / "comfyui.log"

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def log_tail(self, lines: int = 60) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def import_failures(self) -> list[str]:
        """The custom node folders that ComfyUI could not import."""
        return [line.split(": ", 1)[1] for line in self.log().splitlines() if "(IMPORT FAILED)" in line]

    def get(self, path: str) -> Any:
        return json.loads(self._request(path))

    def post(self, path: str, body: Json) -> Any:
        """Sends JSON; ComfyUI answers many posts with an empty body, which is None here."""
        return json.loads(self._request(path, body) or b"null")

    def _request(self, path: str, body: Json | None = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read()

    def object_info(self, node: str | None = None) -> Json:
        """Every node's definition, or the one of a single class id."""
        if node is None:
            return self.get("/object_info")
        return self.get(f"/object_info/{urllib.parse.quote(node)}")[node]

    def queue(self, prompt: Json, client_id: str = "", extra_data: Json | None = None) -> str:
        """Queues an API-format prompt and returns its id; any node error at all raises PromptRejected."""
        body: Json = {"prompt": prompt, "extra_data": extra_data or {}}
        if client_id:
            body["client_id"] = client_id
        try:
            answer = self.post("/prompt", body)
        except urllib.error.HTTPError as error:
            raise PromptRejected(json.loads(error.read())) from None
        if answer.get("node_errors"):
            raise PromptRejected(answer)
        return answer["prompt_id"]

    def wait(self, prompt_id: str, timeout: float = 300) -> Json:
        """The history entry, once the prompt has ended in whatever way."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            if self.process.poll() is not None:
                raise ComfyError(f"ComfyUI ended with code {self.process.returncode}\n{self.log_tail()}")
            time.sleep(0.1)
        raise ComfyError(f"prompt {prompt_id} did not end within {timeout:g} s\n{self.log_tail()}")

    def run(self, prompt: Json, timeout: float = 300) -> Json:
        """Queues, waits, insists on success; returns the outputs by node id."""
        entry = self.wait(self.queue(prompt), timeout)
        if outcome(entry) != "success":
            raise ComfyError(f"{failure(entry)}\n{self.log_tail()}")
        return entry["outputs"]

    def write_settings(self, settings: Json) -> None:
        """Sets what the frontend finds in its settings at the next page load; everything else is default."""
        (self.base / "user/default/comfy.settings.json").write_text(json.dumps(SETTINGS | settings))

    def interrupt(self, prompt_id: str = "") -> None:
        self.post("/interrupt", {"prompt_id": prompt_id} if prompt_id else {})

    def view(self, image: Json) -> Image.Image:
        """Downloads an image that a node reported as {filename, subfolder, type}."""
        return Image.open(BytesIO(self._request("/view?" + urllib.parse.urlencode(image))))

    @contextmanager
    def listen(self) -> Iterator[tuple[str, Events]]:
        """Yields a client id to queue with, and the events which that client receives."""
        client_id, events, ready = uuid.uuid4().hex, Events(), threading.Event()
        socket_url = f"{self.url.replace('http', 'ws', 1)}/ws?clientId={client_id}"
        loop = asyncio.new_event_loop()
        reader = loop.create_task(_read_socket(socket_url, events, ready))
        thread = threading.Thread(target=_run_until_cancelled, args=(loop, reader), daemon=True)
        thread.start()
        try:
            if not ready.wait(30):
                raise ComfyError("the websocket did not open within 30 s")
            yield client_id, events
        finally:
            loop.call_soon_threadsafe(reader.cancel)
            thread.join()


def outcome(entry: Json) -> Literal["success", "error", "interrupted"]:
    """How a prompt ended: ComfyUI itself files an interruption under "error"."""
    kinds = [kind for kind, _ in entry["status"]["messages"]]
    return "interrupted" if "execution_interrupted" in kinds else entry["status"]["status_str"]


def failure(entry: Json) -> str:
    """What the failing node said, or nothing."""
    errors = [data for kind, data in entry["status"]["messages"] if kind == "execution_error"]
    return "\n".join(f"{e['node_type']} #{e['node_id']}: {e['exception_message']}" for e in errors)


def parse_message(message: bytes | str) -> Event:
    """Decodes one websocket message, see ComfyUI's protocol.py for the binary kinds."""
    if isinstance(message, str):
        content = json.loads(message)
        return Event(content["type"], content.get("data") or {})
    kind, length = struct.unpack(">II", message[:8])
    if kind == 1:  # plain preview; the second number is the image type
        return Event("preview", {}, Image.open(BytesIO(message[8:])))
    if kind == 3:  # text shown on a node
        node, text = message[8 : 8 + length], message[8 + length :]
        return Event("text", {"node": node.decode(), "text": text.decode()})
    if kind == 4:  # preview with metadata
        metadata = json.loads(message[8 : 8 + length])
        return Event("preview", metadata, Image.open(BytesIO(message[8 + length :])))
    return Event(f"binary {kind}", {"bytes": len(message)})


async def _read_socket(url: str, events: Events, ready: threading.Event) -> None:
    import aiohttp  # ComfyUI itself requires it

    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as connection:
        await connection.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        async for message in connection:
            events.received.append(parse_message(message.data))
            ready.set()  # the server greets with "status" once it knows the client


def _run_until_cancelled(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    try:
        loop.run_until_complete(task)
    except asyncio.CancelledError:
        pass
    finally:
        loop.close()


def prepare_base(base: Path, packs: dict[str, Path]) -> None:
    """Lays out a ComfyUI base directory with the packs linked in under the given names."""
    for folder in FOLDERS:
        (base / folder).mkdir(parents=True, exist_ok=True)
    for name, source in packs.items():
        (base / "custom_nodes" / name).symlink_to(source, target_is_directory=True)


@contextmanager
def running_comfy(checkout: Path, base: Path, packs: dict[str, Path]) -> Iterator[Comfy]:
    """Starts ComfyUI on the CPU, waits until it answers, and ends that one process afterwards."""
    prepare_base(base, packs)
    port = free_port()
    command = [sys.executable, str(checkout / "main.py"), "--cpu", "--disable-auto-launch", "--disable-api-nodes"]
    command += ["--base-directory", str(base), "--database-url", f"sqlite:///{base / 'user/comfyui.db'}"]
    command += ["--listen", "127.0.0.1", "--port", str(port)]
    environment = {"HF_HUB_OFFLINE": "1", **os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    with (base / "comfyui.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=checkout, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        comfy = Comfy(f"http://127.0.0.1:{port}", base, process)
        _wait_until_up(comfy)
        yield comfy
    finally:
        _end(process)


def _wait_until_up(comfy: Comfy) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and comfy.process.poll() is None:
        try:
            comfy.get("/system_stats")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    code = comfy.process.poll()
    reason = f"did not answer within {START_SECONDS} s" if code is None else f"ended with code {code}"
    raise ComfyError(f"ComfyUI {reason}\n{comfy.log_tail()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
