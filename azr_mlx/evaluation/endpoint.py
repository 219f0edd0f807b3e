"""Samples from a server that speaks OpenAI's interface: mlx_lm.server, LM Studio, Ollama, vLLM and others.

An `Endpoint` stands where a policy does: it is asked for samples and gives them as they come, several at a time. What
the network or a busy server refuses is asked for again; what the server says to a wrong request is passed on.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from azr_mlx.config import load_style
from azr_mlx.errors import AzrError, UsageError
from azr_mlx.evaluation.benchmark import Benchmark, Wording, is_chat
from azr_mlx.types import Completion, Prompt, Rollout, Stop

KEY = "AZR_API_KEY"  # of the environment; OPENAI_API_KEY goes to OpenAI only
_TRIES = 6
_PAUSE, _LONGEST = 1.0, 30.0  # seconds before a request is tried again, doubled up to the second
_PATIENCE = 600.0  # seconds for one reply
_FEW_STOPS = 4  # that every server takes; others are cut here
_AGAIN = frozenset((408, 409, 425, 429, 500, 502, 503, 504))


@dataclass
class Endpoint:
    """A served model. `chat` says which of the two interfaces is asked; `say` gets a line for each trouble.

    address: up to the version, as http://localhost:8080/v1.
    """

    address: str
    model: str
    chat: bool = False
    requests: int = 8  # at a time
    say: Callable[[str], None] = lambda line: None

    def __post_init__(self) -> None:
        self.address = clean_address(self.address)
        key = os.environ.get(KEY) or (
            os.environ.get("OPENAI_API_KEY", "") if urlsplit(self.address).hostname == "api.openai.com" else ""
        )
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(_PATIENCE, connect=10.0),
            limits=httpx.Limits(max_connections=self.requests, max_keepalive_connections=self.requests),
        )
        self._few = False  # the server takes four stop texts only
        self._ended = threading.Event()

    def render_chat(self, user_text: str, prefill: str = "", earlier: Sequence[tuple[str, str]] = ()) -> str:
        """The user's text: the server has the chat template. Raises ValueError for a reply that is begun."""
        if prefill:
            raise ValueError("a server's chat interface begins replies itself: take a variant without a prefill")
        return user_text

    def sample(
        self, prompts: Sequence[Prompt], n: int = 1, *, seed: Sequence[int], max_tokens: int | Sequence[int],
        temperature: float = 1.0, top_p: float = 1.0, stop: Sequence[str] = (),
        progress: Callable[[int, int, int], None] | None = None, names: Sequence[int] = (),
    ) -> Iterator[tuple[int, int, Rollout]]:  # fmt: skip
        """n completions of each prompt as they come: (number of the prompt, number of its sample, rollout).

        Tokens are counted by the server; their ids are not known, and are 0. Raises AzrError when the server refuses a
        request, or when it gives no answer after several tries.
        """
        wanted = [(i, j) for i in range(len(prompts)) for j in range(n)]
        limits = [max_tokens] * len(prompts) if isinstance(max_tokens, int) else list(max_tokens)
        numbers = list(names) or list(range(len(prompts)))

        def one(i: int, j: int) -> Rollout:
            draw = (int(seed[0]) * 1_000_003 + numbers[i] * n + j) % (1 << 31)
            asked: dict[str, Any] = {
                "model": self.model, "max_tokens": limits[i], "temperature": temperature, "top_p": top_p, "seed": draw,
                "stop": list(stop),
            }  # fmt: skip
            text, tokens, cut_off = self.ask(prompts[i].text, asked)
            completion = Completion((0,) * tokens, (0.0,) * tokens, text, Stop.LENGTH if cut_off else Stop.EOS)
            return Rollout(prompts[i], (), completion)

        todo: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[int, int, Rollout | BaseException]] = queue.SimpleQueue()
        ended = self._ended = threading.Event()
        for pair in wanted:
            todo.put(pair)

        def work() -> None:
            while not ended.is_set():
                try:
                    i, j = todo.get_nowait()
                except queue.Empty:
                    return
                try:
                    found: Rollout | BaseException = one(i, j)
                except BaseException as error:
                    found = error
                done.put((i, j, found))

        # Daemons: who interrupts an evaluation does not wait for a server that takes its time.
        for number in range(min(self.requests, len(wanted))):
            threading.Thread(target=work, name=f"azr-endpoint-{number}", daemon=True).start()
        written = 0
        try:
            for count in range(1, len(wanted) + 1):
                i, j, found = done.get()
                if isinstance(found, BaseException):
                    raise found
                written += len(found.completion.tokens)
                if progress is not None:
                    progress(count, len(wanted), written)
                yield i, j, found
        finally:
            ended.set()  # nobody waits for what is still to be asked for, or asked for again

    def ask(self, text: str, asked: dict[str, Any]) -> tuple[str, int, bool]:
        """One reply: its text, how many tokens it took (0 when the server does not say), whether the limit cut it."""
        if self.chat:
            body = {**asked, "messages": [{"role": "user", "content": text}]}
        else:
            body = {**asked, "prompt": text}
        if not body["stop"]:
            del body["stop"]
        reply = self._post("/chat/completions" if self.chat else "/completions", body)
        try:
            choice = reply["choices"][0]
            said = _message(choice["message"]) if self.chat else str(choice["text"] or "")
            tokens = (reply.get("usage") or {}).get("completion_tokens") or 0
            return said, max(0, int(tokens)), choice.get("finish_reason") == "length"
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise AzrError(f"{self.address} answers, but not as OpenAI's interface does: {str(reply)[:200]}") from None

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a request until it is answered. Raises AzrError."""
        stops = body.get("stop", [])
        why, pause = "", _PAUSE
        for attempt in range(1, _TRIES + 1):
            if self._few and len(stops) > _FEW_STOPS:
                body = {**body, "stop": stops[:_FEW_STOPS]}
            wanted = 0.0
            try:
                reply = self._client.post(self.address + path, json=body)
                if reply.status_code == 400 and len(body.get("stop", ())) > _FEW_STOPS and "stop" in reply.text:
                    self._few = True
                    continue
                if reply.status_code not in _AGAIN:
                    return self._read(reply)
                why = f"answered {reply.status_code}{_said(reply)}"
                wanted = _seconds(reply.headers.get("retry-after", ""))
            except httpx.HTTPError as error:
                why = f"did not answer ({str(error) or type(error).__name__})"
            if attempt < _TRIES:
                pause = max(pause, wanted)
                self.say(f"{self.address} {why}: trying again in {pause:.0f} s ({attempt} of {_TRIES - 1})")
                if self._ended.wait(pause):
                    break
                pause = min(2 * pause, _LONGEST)
        raise AzrError(f"{self.address} {why}, after {_TRIES} tries: is the server running, and is the address right?")

    def _read(self, reply: httpx.Response) -> dict[str, Any]:
        if reply.is_success:
            try:
                found = reply.json()
            except ValueError:
                found = None
            if isinstance(found, dict):
                return found
            raise AzrError(f"{reply.url} answers, but with no JSON object: {reply.text[:200]!r}")
        hint = {
            401: f": set {KEY}", 403: f": set {KEY}",
            404: f": is {self.model} served there, and does the address end in /v1?",
        }.get(reply.status_code, "")  # fmt: skip
        raise AzrError(f"{reply.url} refuses the request, {reply.status_code}{_said(reply)}{hint}")

    def served(self) -> list[str]:
        """The models that the server names. Raises AzrError when there is no server."""
        try:
            reply = self._client.get(f"{self.address}/models", timeout=10.0)
        except httpx.HTTPError as error:
            raise AzrError(f"{self.address} does not answer: {str(error) or type(error).__name__}") from None
        found = self._read(reply).get("data")
        rows = found if isinstance(found, list) else []
        return [str(row["id"]) for row in rows if isinstance(row, dict) and "id" in row]


def clean_address(address: str) -> str:
    """The address without a slash at its end, or the interface's own path. Raises UsageError for what is none."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--endpoint {address} is no address; one is http://localhost:8080/v1")
    bare = address.rstrip("/")
    for path in ("/chat/completions", "/completions"):
        bare = bare.removesuffix(path)
    return bare


def endpoint_variant(benchmark: Benchmark, prompt: str, model: str) -> str:
    """The prompt variant for a served model: of those that a server can be asked in. Raises UsageError.

    A server has the chat template to itself, so that a reply cannot be begun for the model, and it decides itself
    whether the model thinks.
    """
    free = [name for name, one in benchmark.prompts.items() if not (one.chat and one.prefill) and not _chats(one)]
    if prompt:
        if prompt not in free:
            raise UsageError(
                f"prompt {prompt} needs the model's own chat template, and a server keeps it to itself: take --prompt "
                f"{' or '.join(free)}"
            )
        return prompt
    wanted = [name for name in free if benchmark.prompts[name].chat == is_chat(model)]
    usual = benchmark.default_chat if is_chat(model) else benchmark.default
    return usual if usual in wanted else (wanted or free)[0]


def _chats(wording: Wording) -> bool:
    """Whether a variant is a style of self-play that goes through a chat template."""
    return bool(wording.style) and load_style(wording.style).chat


def _message(message: Any) -> str:
    """The text of a chat message, its thinking in front where the server keeps that apart."""
    said = str(message.get("content") or "")
    thought = message.get("reasoning_content") or message.get("reasoning") or ""
    return f"<think>{thought}</think>{said}" if thought and said else f"<think>{thought}" if thought else said


def _said(reply: httpx.Response) -> str:
    """What a server says of an error, on one line."""
    try:
        found = reply.json()
        error = found.get("error", found) if isinstance(found, dict) else found
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except ValueError:
        text = reply.text
    text = " ".join(text.split())[:200]
    return f" ({text})" if text else ""


def _seconds(text: str) -> float:
    try:
        return min(max(0.0, float(text)), 2 * _LONGEST)
    except ValueError:
        return 0.0
