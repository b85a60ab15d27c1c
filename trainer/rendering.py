"""Conversations to token ids and a loss mask, without torch: training, preview and chat all see exactly this."""

import os.path
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from trainer.call_form import arguments_at, call_of, tool_called
from trainer.chat_template import ChatTemplate, Message
from trainer.errors import TrainerError
from trainer.formats.canonical import Content
from trainer.safe_tokens import Marked, SafeTokenizer
from trainer.template_files import decoder_start, read_json, special_tokens, template_sources
from trainer.template_messages import left_out, plain, refusal, shown


@dataclass(frozen=True)
class Example:
    """A row as the model sees it. `trained[i]`: token i is learnt; `whole`: how many tokens it had before the cut.

    `source`: how many of the first ones an encoder reads; the rest is then the decoder's.
    """

    ids: list[int]
    trained: list[bool]
    whole: int
    source: int = 0

    @property
    def truncated(self) -> bool:
        return len(self.ids) < self.whole

    @property
    def learnt(self) -> bytes:
        """`trained`, one byte a token, without the first: nothing foretells it."""
        return bytes([0, *self.trained[1:]])


class Renderer:
    """A base model's tokenizer and chat template.

    Renders as transformers' `apply_chat_template` does and encodes to the same ids, with one difference: a special
    token spelt in the text of a person is ordinary text here. Thread-safe.
    """

    start: int | None = None  # the token that answers begin with, where a decoder writes them

    def __init__(self, folder: Path, *, moment: datetime | None = None) -> None:
        config = read_json(folder / "tokenizer_config.json")
        named = special_tokens(config)
        sources = template_sources(folder, config)
        self._tokens = SafeTokenizer(folder, template="\n".join(sources.values()))
        self._templates = {
            name: ChatTemplate(source, named, marks=self._tokens.marks) for name, source in sources.items()
        }
        self._moment = moment
        self.stop_ids = self._find_stop_ids(folder, named)
        self._begin = self._tokens.first_ids()
        end = self._tokens.special_id(named.get("eos_token", ""))
        self._end = [] if end is None else [end]

    @classmethod
    def load(cls, folder: Path, *, moment: datetime | None = None) -> "Renderer":
        """Read tokenizer and template from a base model's (or an adapter's) folder; TrainerError when one is missing.

        `moment` fixes what a template takes for today, so that a training resumed tomorrow sees the same tokens.
        """
        folder = Path(folder)
        start = decoder_start(folder)
        return cls(folder, moment=moment) if start is None else Seq2SeqRenderer(folder, start, moment=moment)

    def text(
        self, messages: Sequence[Message], tools: Sequence[Any] | None = None, *, add_generation_prompt: bool = False
    ) -> str:
        """The conversation as the template writes it."""
        rendered = self._render(plain(messages), tools, prompt=add_generation_prompt)
        return self._tokens.public(rendered.text)

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> list[int]:
        """The conversation with the opening of the assistant's answer: what a model continues."""
        return self._tokens.encode(self._render(plain(messages), tools, prompt=True).text)[0]

    def plain_ids(self, text: str) -> list[int]:
        """A text outside of any conversation, after what the tokenizer itself puts before every text."""
        return self._begin + self._tokens.encode(self._tokens.mark(self._tokens.guard(text)).text)[0]

    def general_example(self, text: str, *, longest: int) -> Example:
        """A text outside of any conversation, all of whose tokens but the first are foretold."""
        ids = self.plain_ids(text)[:longest]
        return Example(ids, [False] + [True] * (len(ids) - 1), whole=len(ids))

    def raw_ids(self, text: str) -> list[int]:
        """A text as the plain tokenizer reads it, special tokens that it spells included: the asker writes it all."""
        return self._tokens.encode_raw(text)

    @property
    def vocabulary(self) -> int:
        """How many tokens the tokenizer knows."""
        return self._tokens.size

    @property
    def special_ids(self) -> frozenset[int]:
        """Tokens that only a template writes, never the text of a person."""
        return self._tokens.special_ids

    def token_bytes(self, token: int) -> bytes:
        """The bytes a token stands for; parts of a character are none that could be decoded."""
        return self._tokens.piece(token)

    @cached_property
    def reads_tools(self) -> bool:
        """Whether the template writes tools into the prompt."""
        try:
            return "probe_tool" in self.text([{"role": "user", "content": "A"}], [tool_called("probe_tool")])
        except TrainerError:
            return False

    def call_opening(self, name: str) -> list[int] | None:
        """The tokens that an answer begins with which calls this function, up to its arguments.

        None when the template has no form for calls, or one whose arguments are no JSON after the function's name.
        """
        moment, asked = self._moment or datetime.now(), [{"role": "user", "content": "A"}]
        tools = [tool_called(name)]
        try:
            before = self._render(asked, tools, prompt=True, moment=moment).text
            full = self._render([*asked, call_of(name)], tools, moment=moment).text
        except TrainerError:
            return None
        start, end = len(before), arguments_at(full, len(before))
        if end is None or not full.startswith(before) or name not in full[start:end]:
            return None
        ids, offsets = self._tokens.encode(full)
        places = [at for at, (begin, stop) in enumerate(offsets) if begin >= start and stop <= end]
        return [ids[at] for at in places] if places and offsets[places[0]][0] == start else None

    def example(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Any] | None = None,
        train_on: Literal["answers", "everything"] = "answers",
        max_seq_length: int | None = None,
    ) -> Example:
        """A row for training. Trained are the assistant's answers with their end-of-turn token, or everything."""
        turns = plain(messages)
        moment = self._moment or datetime.now()
        full = self._render(turns, tools, moment=moment)
        ids, offsets = self._tokens.encode(full.text)
        if train_on == "everything":
            trained = [True] * len(ids)
        else:
            trained = _inside(offsets, self._answer_spans(turns, tools, full, moment))
        cut = max_seq_length if max_seq_length is not None and len(ids) > max_seq_length else None
        return Example(ids[:cut], trained[:cut], whole=len(ids))

    def examples(
        self,
        row: Content,
        *,
        train_on: Literal["answers", "everything"] = "answers",
        max_seq_length: int | None = None,
    ) -> list[Example]:
        """All that a canonical row gives to learn from: one example, or two that differ in their answers."""
        if row.text is not None:
            return [self.text_example(row.text, max_seq_length=max_seq_length)]
        return [
            self.example(messages, tools=row.tools, train_on=train_on, max_seq_length=max_seq_length)
            for messages in row.conversations()
        ]

    def left_out(self, row: Content) -> set[str]:
        """What a row holds that the template passes over without a word: "reasoning", "tool calls", "tools"."""
        moment = self._moment or datetime.now()

        def write(turns: Sequence[Message], tools: Sequence[Any] | None) -> str:
            return self._render(turns, tools, moment=moment).text

        return set().union(*(left_out(plain(messages), row.tools, write) for messages in row.conversations()))

    def text_example(self, text: str, *, max_seq_length: int | None = None) -> Example:
        """Plain text for training, with no template around it: every token is learnt, and that it ends."""
        ids = [*self.plain_ids(text), *self._end]
        cut = max_seq_length if max_seq_length is not None and len(ids) > max_seq_length else None
        return Example(ids[:cut], [True] * len(ids[:cut]), whole=len(ids))

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return self._tokens.decode(ids, skip_special=skip_special)

    def _render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Any] | None,
        *,
        prompt: bool = False,
        moment: datetime | None = None,
    ) -> Marked:
        template = self._templates["tool_use" if tools and "tool_use" in self._templates else "default"]

        def write(turns: Sequence[Message], offered: Sequence[Any] | None) -> str:
            guarded = [self._tokens.guard(shown(one), answer=one["role"] == "assistant") for one in turns]
            offered, at = self._tokens.guard(offered), moment or self._moment
            return template.render(guarded, tools=offered, add_generation_prompt=prompt, moment=at)

        try:
            return self._tokens.mark(write(messages, tools))
        except TrainerError as error:
            raise refusal(error, messages, tools, write) from error

    def _answer_spans(
        self, messages: list[dict[str, Any]], tools: Sequence[Any] | None, full: Marked, moment: datetime
    ) -> list[tuple[int, int]]:
        """The characters of `full` that each trained answer takes, up to the end of its turn.

        An answer begins where the same conversation with a generation prompt in its place ends: what a model is given
        at chat time is never trained.
        """

        def render(turns: Sequence[Message], *, prompt: bool = False) -> str:
            return self._render(turns, tools, prompt=prompt, moment=moment).text

        answers = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
        if len(full.spans) == len(answers):  # the template says itself what the assistant says
            found = list(full.spans)
        else:
            found = [self._answer_span(messages, at, full, render) for at in answers]
        return [span for at, span in zip(answers, found, strict=True) if messages[at].get("weight", 1) != 0]

    def _answer_span(
        self, messages: list[dict[str, Any]], at: int, full: Marked, render: Callable[..., str]
    ) -> tuple[int, int]:
        start = _answer_start(messages, at, full.text, render)
        after = render(messages[: at + 1])
        ends = [len(after)] if full.text.startswith(after) else []
        stop = self._tokens.end_of_next(full.text, start=start, ids=self.stop_ids)
        ends += [stop] if stop is not None else []
        return start, min(ends, default=len(full.text))

    def _find_stop_ids(self, folder: Path, named: Mapping[str, str]) -> frozenset[int]:
        """Tokens that end an answer: the model's own list, and what the template writes after one."""
        listed = [read_json(folder / name).get("eos_token_id") for name in ("generation_config.json", "config.json")]
        named_ids = next((one for one in listed if one is not None), None)
        found = {one for one in (named_ids if isinstance(named_ids, list) else [named_ids]) if isinstance(one, int)}
        end = self._tokens.special_id(named.get("eos_token", ""))
        probe = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]
        try:
            before = self._render(probe[:1], None, prompt=True).text
            rest = self._render(probe, None).text.removeprefix(before)
            turn_end = self._tokens.first_special(rest, start=rest.rfind("B") + 1)
        except TrainerError:  # a template that refuses so plain a conversation says so when it matters
            turn_end = None
        return frozenset(found | {one for one in (end, turn_end) if one is not None})


class Seq2SeqRenderer(Renderer):
    """For a model whose encoder reads the conversation and whose decoder writes the last answer.

    An example is what the encoder reads, the token `start` that the decoder begins with, and the answer. Both texts
    have around them what the tokenizer itself puts around every text, the answer at least its end.
    """

    def __init__(self, folder: Path, start: int, *, moment: datetime | None = None) -> None:
        super().__init__(folder, moment=moment)
        self.start: int = start
        self._close = self._tokens.last_ids()
        ends = any(one in self.stop_ids for one in self._close)
        self._answer_close = self._close if ends else [*self._close, *self._end]

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> list[int]:
        """The conversation as the encoder reads it."""
        return [*self._begin, *super().prompt_ids(messages, tools), *self._close]

    def example(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Any] | None = None,
        train_on: Literal["answers", "everything"] = "answers",
        max_seq_length: int | None = None,
    ) -> Example:
        """The conversation up to its last answer, and that answer, which is learnt. What follows it is left out.

        A row that is too long loses the end of its conversation, as far as half of the length, and then of its answer.
        """
        if train_on == "everything":
            raise _no_answer("data.train_on is everything, and this base model learns what it writes alone")
        answers = [at for at, message in enumerate(messages) if message.get("role") == "assistant"]
        if not answers or answers[-1] == 0:
            raise _no_answer("It has no answer of the assistant to something before it")
        last = plain(messages)[answers[-1]]
        if last.get("tool_calls") or not isinstance(last.get("content"), str):
            raise _no_answer("Its last answer is no text")
        source = self.prompt_ids(messages[: answers[-1]], tools)
        answer, _ = self._tokens.encode(self._tokens.mark(self._tokens.guard(last["content"], answer=True)).text)
        written = [self.start, *self._begin, *answer, *self._answer_close]
        whole = len(source) + len(written)
        if max_seq_length is not None and whole > max_seq_length:
            written = written[: max(max_seq_length // 2, max_seq_length - len(source))]
            source = self._cut(source, max_seq_length - len(written))
        learnt = last.get("weight", 1) != 0
        trained = [False] * (len(source) + 1) + [learnt] * (len(written) - 1)
        return Example([*source, *written], trained, whole=whole, source=len(source))

    def text_example(self, text: str, *, max_seq_length: int | None = None) -> Example:
        raise _no_answer("It is plain text, and this base model learns answers to something")

    def general_example(self, text: str, *, longest: int) -> Example:
        """The second half of a text is foretold from its first."""
        ids = self.plain_ids(text)[:longest]
        source = [*ids[: len(ids) // 2], *self._close]
        rest = ids[len(ids) // 2 :]
        trained = [False] * (len(source) + 1) + [True] * len(rest)
        return Example([*source, self.start, *rest], trained, whole=len(trained), source=len(source))

    def _cut(self, source: list[int], length: int) -> list[int]:
        """The first tokens of what an encoder reads, and its end."""
        close = self._close if len(source) > length else []
        return [*source[: length - len(close)], *close]


def _no_answer(text: str) -> TrainerError:
    fix = "Use rows of a question and a text answer, or a base model that is no encoder–decoder."
    return TrainerError("dataset_invalid", f"{text}.", fix)


def _answer_start(messages: list[dict[str, Any]], at: int, full: str, render: Callable[..., str]) -> int:
    """Where the answer `messages[at]` begins in the rendered conversation `full`.

    Templates of reasoning models end the generation prompt with the opening of a thought (`<think>`), but write answers
    without one. There the answer begins where the two part; another answer in its place tells what is the template's.
    """
    before = render(messages[:at], prompt=True)
    if full.startswith(before):
        return len(before)
    closed = render(messages[:at])
    if not (before.startswith(closed) and full.startswith(closed)):
        raise TrainerError(
            "dataset_invalid",
            f"The base model's chat template writes the turns before message {at + 1} differently once more "
            "turns follow, so it cannot be told what the answer is.",
            "Keep one answer and no system message in each row, or choose a base model with another template.",
        )
    other = render([*messages[:at], {"role": "assistant", "content": "A"}, *messages[at + 1 :]])
    start = len(os.path.commonprefix([before, other, full]))
    if start <= len(closed):
        raise TrainerError(
            "dataset_invalid",
            f"The base model's chat template opens an answer in one way and writes message {at + 1} in another, so it "
            "cannot be told what the answer is.",
            "Choose a base model with another chat template.",
        )
    return start


def _inside(offsets: list[tuple[int, int]], spans: list[tuple[int, int]]) -> list[bool]:
    """Which tokens begin inside one of the spans (both in order)."""
    trained = []
    waiting = list(reversed(spans))
    for start, _ in offsets:
        while waiting and waiting[-1][1] <= start:
            waiting.pop()
        trained.append(bool(waiting) and waiting[-1][0] <= start)
    return trained
