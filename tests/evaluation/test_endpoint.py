"""Scoring what a server has: a small server on this machine that can be slow of wit, and mlx_lm's own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from azr_mlx.cli import azr
from azr_mlx.errors import AzrError, UsageError
from azr_mlx.evaluation import endpoint, load_benchmark
from azr_mlx.evaluation.endpoint import Endpoint, clean_address, endpoint_variant
from azr_mlx.types import Kind, Prompt, Role, Rollout
from tests.evaluation.conftest import HUMANEVAL, write_bench

FENCED = "Here:\n```python\n{}```\nIt works."
PROMPTS = {
    "base": {"text": "{prompt}", "stop": ["\ndef", "\n```"], "tokens": 16, "answer": "continue"},
    "chat": {"chat": True, "text": "Solve: {prompt}", "prefill": "Sure:\n```python\n", "tokens": 16, "answer": "block"},
    "chat-plain": {"chat": True, "text": "Solve: {prompt}", "tokens": 16, "answer": "block"},
}


class Server(ThreadingHTTPServer):
    """Answers every problem with its reference, in the form of the interface that is asked; `troubles` come first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.troubles: list[tuple[int, dict[str, str], str]] = []
        self.asked: list[dict[str, Any]] = []
        self.address = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None: ...

    def answer(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body.encode())), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self) -> None:
        self.answer(200, json.dumps({"data": [{"id": "tiny-instruct"}]}))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append({**asked, "path": self.path, "key": self.headers.get("Authorization")})
        if self.server.troubles:
            status, headers, body = self.server.troubles.pop(0)
            self.answer(status, body, headers)
            return
        text = asked["messages"][0]["content"] if "messages" in asked else asked["prompt"]
        row = next(one for one in HUMANEVAL if one["prompt"].strip() in text)
        if "messages" in asked:
            said = FENCED.format(row["prompt"] + row["canonical_solution"])
            choice: dict[str, Any] = {"message": {"role": "assistant", "content": said}}
        else:
            choice = {"text": "\n" + row["canonical_solution"]}
        usage = {"completion_tokens": 7}
        self.answer(200, json.dumps({"choices": [{**choice, "finish_reason": "stop"}], "usage": usage}))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(endpoint, "_PAUSE", 0.01)
    monkeypatch.setattr(endpoint, "_LONGEST", 0.02)
    with Server() as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def call(server: Server, tmp_path: Path, *words: object) -> Result:
    bench = write_bench(tmp_path, "humaneval", prompts=PROMPTS)
    common = ["--bench", bench, "--endpoint", server.address, "--logs", tmp_path / "logs", "--json"]
    return CliRunner().invoke(azr, ["eval", *map(str, [*common, *words])])


def samples(served: Endpoint, **words: Any) -> list[Rollout]:
    """One sample of the first problem."""
    prompts = [Prompt(Role.SOLVE, Kind.DEDUCTION, HUMANEVAL[0]["prompt"], "")]
    return [rollout for _, _, rollout in served.sample(prompts, seed=(0,), max_tokens=8, **words)]


@pytest.mark.parametrize(
    ("model", "prompt", "path"),
    [("tiny-instruct", "chat-plain", "/v1/chat/completions"), ("tiny", "base", "/v1/completions")],
)
def test_a_served_model_is_asked_in_the_interface_of_its_kind(
    server: Server, tmp_path: Path, model: str, prompt: str, path: str
) -> None:
    said = call(server, tmp_path, "--model", model)
    assert said.exit_code == 0, said.output
    (record,) = json.loads(said.stdout)
    assert record["scores"]["pass@1"]["value"] == 1.0
    assert (record["prompt"], record["tokens"], record["weights"]) == (prompt, 14, f"served at {server.address}")
    assert {one["path"] for one in server.asked} == {path}
    assert all(one["temperature"] == 0 and one["max_tokens"] == 16 and one["key"] is None for one in server.asked)
    again = call(server, tmp_path, "--model", model)
    assert json.loads(again.stdout)[0]["reused_samples"] == 2
    assert len(server.asked) == 2, "what was written is not asked for again"


def test_the_only_model_of_a_server_needs_no_name(server: Server, tmp_path: Path) -> None:
    assert json.loads(call(server, tmp_path).stdout)[0]["model"] == "tiny-instruct"


def test_a_busy_server_is_asked_again_with_a_line_for_each_time(server: Server) -> None:
    server.troubles = [(503, {}, '{"error": {"message": "loading"}}'), (429, {"Retry-After": "0"}, "")]
    lines: list[str] = []
    (found,) = samples(Endpoint(server.address, "tiny", say=lines.append))
    assert found.completion.text == "\n" + HUMANEVAL[0]["canonical_solution"]
    assert lines == [
        f"{server.address} answered 503 (loading): trying again in 0 s (1 of 5)",
        f"{server.address} answered 429: trying again in 0 s (2 of 5)",
    ]


def test_what_was_written_is_kept_when_the_server_goes_away(server: Server, tmp_path: Path) -> None:
    asked: list[int] = []
    original = Handler.do_POST

    def once(self: Handler) -> None:
        asked.append(1)
        if len(asked) > 1:
            self.answer(503, "")
        else:
            original(self)

    Handler.do_POST = once  # type: ignore[method-assign]
    try:
        said = call(server, tmp_path, "--model", "tiny", "--rows", 1)
    finally:
        Handler.do_POST = original  # type: ignore[method-assign]
    assert said.exit_code == 1
    assert "after 6 tries: is the server running" in said.output
    assert "1 samples are kept in" in said.output
    assert json.loads(call(server, tmp_path, "--model", "tiny").stdout)[0]["reused_samples"] == 1


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ((404, {}, '{"error": "no model tiny"}'), "refuses the request, 404 (no model tiny): is tiny served there"),
        ((401, {}, ""), "401: set AZR_API_KEY"),
        ((200, {}, "<html>"), "answers, but with no JSON object"),
        ((200, {}, '{"hello": 1}'), "but not as OpenAI's interface does"),
        ((200, {}, '{"choices": [{"text": 5}], "usage": {"completion_tokens": "many"}}'), "but not as OpenAI's"),
    ],
)
def test_a_server_that_says_something_else_is_one_line(
    server: Server, trouble: tuple[int, dict[str, str], str], said: str
) -> None:
    server.troubles = [trouble]
    with pytest.raises(AzrError) as caught:
        samples(Endpoint(server.address, "tiny"))
    assert said in str(caught.value)


def test_a_server_that_takes_four_stop_texts_gets_four(server: Server) -> None:
    server.troubles = [(400, {}, '{"error": {"message": "stop: at most 4 sequences"}}')]
    served = Endpoint(server.address, "tiny", requests=1)
    (found,) = samples(served, stop=["a#", "b#", "c#", "d#", "e#"])
    assert found.completion.text == "\n" + HUMANEVAL[0]["canonical_solution"]
    assert [len(one["stop"]) for one in server.asked] == [5, 4]


def test_who_interrupts_does_not_wait_for_a_slow_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter waits at its end for every thread that is no daemon."""
    release = threading.Event()
    original = Handler.do_POST

    def slow(self: Handler) -> None:
        if len(self.server.asked) >= 1:
            release.wait(60)
        original(self)

    monkeypatch.setattr(Handler, "do_POST", slow)
    prompts = [Prompt(Role.SOLVE, Kind.DEDUCTION, HUMANEVAL[0]["prompt"], "")] * 3
    going = Endpoint(server.address, "tiny", requests=1).sample(prompts, seed=(0,), max_tokens=8)
    next(going)
    mine = [one for one in threading.enumerate() if one.name.startswith("azr-endpoint")]
    assert mine
    assert all(one.daemon for one in mine)
    going.close()
    release.set()
    for one in mine:
        one.join(30)
    assert len(server.asked) == 2, "the third is not asked for any more"


def test_thinking_that_a_server_keeps_apart_is_put_before_the_answer() -> None:
    message = {"content": "42", "reasoning_content": "6 * 7"}
    assert endpoint._message(message) == "<think>6 * 7</think>42"
    assert endpoint._message({"content": None, "reasoning": "6 *"}) == "<think>6 *", "unfinished"


def test_a_key_goes_where_it_belongs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of another company")
    assert "Authorization" not in Endpoint(server.address, "tiny")._client.headers
    monkeypatch.setenv("AZR_API_KEY", "mine")
    assert Endpoint(server.address, "tiny")._client.headers["Authorization"] == "Bearer mine"


def test_a_begun_reply_is_refused_with_the_variants_there_are() -> None:
    with pytest.raises(UsageError, match=r"take --prompt base or chat-plain"):
        endpoint_variant(load_benchmark("humaneval"), "chat", "x-instruct")
    assert endpoint_variant(load_benchmark("humaneval+"), "", "Qwen2.5-Coder-3B-Instruct") == "chat-plain"
    assert endpoint_variant(load_benchmark("cruxeval-o"), "", "Qwen2.5-Coder-3B") == "base"


@pytest.mark.parametrize("address", ["localhost:8080", "ftp://x/v1", "http://"])
def test_what_is_no_address_is_one_line(address: str) -> None:
    with pytest.raises(UsageError, match="is no address; one is http://localhost:8080/v1"):
        clean_address(address)


def test_no_server_is_one_line() -> None:
    with pytest.raises(AzrError, match=r"http://127.0.0.1:9/v1 does not answer"):
        Endpoint("http://127.0.0.1:9/v1/chat/completions", "").served()


@pytest.mark.slow
def test_mlx_lms_own_server_is_scored(tmp_path: Path, root: Path) -> None:
    """The embedded model behind mlx_lm.server writes what it writes here, greedily.

    Up to the first fence: fences are special tokens of this tokenizer, and the server leaves such tokens out.
    """
    model = root / "checkpoints/qwen3-nano"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "mlx_lm", "server", "--model", str(model), "--port", str(port)]
    served = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}/v1"
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                httpx.get(f"{address}/models")
                break
            except httpx.HTTPError:
                time.sleep(0.2)
        common = ["--bench", "humaneval", "--limit", 4, "--tokens", 24, "--model", model, "--json"]
        found = []
        for side in (["--endpoint", address], []):
            for prompt in ("base", "chat-plain"):
                logs = tmp_path / f"{len(side)}-{prompt}"
                said = CliRunner().invoke(
                    azr, ["eval", *map(str, [*common, *side, "--prompt", prompt, "--logs", logs])]
                )
                assert said.exit_code == 0, said.output
                samples = Path(json.loads(said.stdout)[0]["samples_file"]).read_text().splitlines()
                found.append(sorted((one["task_id"], one["text"]) for one in map(json.loads, samples)))
        pairs = [
            (theirs, ours)
            for there, here in zip(found[:2], found[2:], strict=True)
            for (_, theirs), (_, ours) in zip(there, here, strict=True)
        ]
        alike = [theirs.startswith(ours.partition("\n```")[0].rstrip()) for theirs, ours in pairs]
        assert all(alike), pairs
        assert sum(len(ours) > 5 for _, ours in pairs) > 4
    finally:
        served.terminate()
        served.wait(30)
