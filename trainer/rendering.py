"""Conversations to token ids and loss masks, the same for training, preview and chat. No torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from trainer.answer_spans import answer_start, tokens_inside
from trainer.base_files import GENERATION, read_json_if_any, read_settings
from trainer.call_form import arguments_at, call_of, tool_called
from trainer.chat_template import ChatTemplate, Message
from trainer.errors import TrainerError
from trainer.formats.canonical import Content
from trainer.safe_tokens import Marked, SafeTokenizer
from trainer.template_files import decoder_start, special_tokens, template_sources
from trainer.template_messages import left_out, plain, refusal, visible_fields


@dataclass(frozen=True)
class Example:
    """A tokenised row. `trained`: the loss mask over its tokens; `whole`: its length in tokens before truncation.

    `source`: how many of the first tokens are the encoder's input; the others are then the decoder's.
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
        """`trained` as one byte per token. The first is never trained: there is nothing to predict it from."""
        return bytes([0, *self.trained[1:]])


class Renderer:
    """A base model's tokenizer and chat template. Without a template, plain text can be encoded, and no conversation.

    Renders like transformers' `apply_chat_template` and encodes to the same ids, with one difference: special tokens
    spelt in messages are ordinary text. Thread-safe.
    """

    start: int | None = None  # the decoder start token of an encoder–decoder model

    def __init__(self, folder: Path, *, moment: datetime | None = None) -> None:
        config = read_settings(folder)
        named = special_tokens(config)
        sources = template_sources(folder, config)
        self._tokens = SafeTokenizer(folder, template="\n".join(sources.values()))
        self._templates = {
            name: ChatTemplate(source, named, marks=self._tokens.marks) for name, source in sources.items()
        }
        self._moment = moment
        self.stop_ids = self._find_stop_ids(folder, named)
        self._prefix = self._tokens.first_ids()
        end = self._tokens.special_id(named.get("eos_token", ""))
        self._eos = [] if end is None else [end]

    @classmethod
    def load(cls, folder: Path, *, moment: datetime | None = None) -> "Renderer":
        """Read tokenizer and template from a base model's or adapter's folder. Raises TrainerError.

        `moment`: what templates take as the current time, so that a run that is resumed later sees the same tokens.
        """
        folder = Path(folder)
        start = decoder_start(folder)
        return cls(folder, moment=moment) if start is None else Seq2SeqRenderer(folder, start, moment=moment)

    def text(
        self, messages: Sequence[Message], tools: Sequence[Any] | None = None, *, add_generation_prompt: bool = False
    ) -> str:
        """The rendered conversation."""
        rendered = self._render(plain(messages), tools, prompt=add_generation_prompt)
        return self._tokens.public(rendered.text)

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> list[int]:
        """The conversation with a generation prompt."""
        return self._tokens.encode(self._render(plain(messages), tools, prompt=True).text)[0]

    def plain_ids(self, text: str) -> list[int]:
        """A text without a chat template, after the tokenizer's own leading tokens (BOS)."""
        return self._prefix + self._tokens.encode(self._tokens.mark(self._tokens.guard(text)).text)[0]

    def general_example(self, text: str, *, longest: int) -> Example:
        """A text without a chat template, trained on all tokens but the first, cut to `longest` tokens."""
        ids = self.plain_ids(text)[:longest]
        return Example(ids, [False] + [True] * (len(ids) - 1), whole=len(ids))

    def raw_ids(self, text: str) -> list[int]:
        """A raw prompt encoded by the plain tokenizer, in which spelt special tokens count."""
        return self._tokens.encode_raw(text)

    @property
    def vocabulary(self) -> int:
        """The size of the vocabulary."""
        return self._tokens.size

    @property
    def largest_id(self) -> int:
        """The largest token id that the tokenizer has; ids may have gaps."""
        return self._tokens.largest_id

    @property
    def special_ids(self) -> frozenset[int]:
        """Tokens that only a template can write, not a message."""
        return self._tokens.special_ids

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token, which may be only part of a character."""
        return self._tokens.token_bytes(token)

    @cached_property
    def reads_tools(self) -> bool:
        """Whether the template writes tools into the prompt."""
        try:
            return "probe_tool" in self.text([{"role": "user", "content": "A"}], [tool_called("probe_tool")])
        except TrainerError:
            return False

    def call_opening(self, name: str) -> list[int] | None:
        """The first tokens of an answer that calls this function, up to the arguments.

        None if the template does not render calls, or not as the function's name followed by JSON arguments.
        """
        moment, question = self._moment or datetime.now(), [{"role": "user", "content": "A"}]
        tools = [tool_called(name)]
        try:
            before = self._render(question, tools, prompt=True, moment=moment).text
            full = self._render([*question, call_of(name)], tools, moment=moment).text
        except TrainerError:
            return None
        start, end = len(before), arguments_at(full, len(before))
        if end is None or not full.startswith(before) or name not in full[start:end]:
            return None
        ids, offsets = self._tokens.encode(full)
        indices = [index for index, (begin, stop) in enumerate(offsets) if begin >= start and stop <= end]
        return [ids[index] for index in indices] if indices and offsets[indices[0]][0] == start else None

    def example(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Any] | None = None,
        train_on: Literal["answers", "everything"] = "answers",
        max_seq_length: int | None = None,
    ) -> Example:
        """A row for training, on the assistant's answers with their end-of-turn tokens, or on everything."""
        turns = plain(messages)
        moment = self._moment or datetime.now()
        full = self._render(turns, tools, moment=moment)
        ids, offsets = self._tokens.encode(full.text)
        if train_on == "everything":
            trained = [True] * len(ids)
        else:
            trained = tokens_inside(offsets, self._answer_spans(turns, tools, full, moment))
        cut = max_seq_length if max_seq_length is not None and len(ids) > max_seq_length else None
        return Example(ids[:cut], trained[:cut], whole=len(ids))

    def examples(
        self,
        row: Content,
        *,
        train_on: Literal["answers", "everything"] = "answers",
        max_seq_length: int | None = None,
    ) -> list[Example]:
        """A canonical row's examples: one, or two for a chosen and a rejected answer."""
        if row.text is not None:
            return [self.text_example(row.text, max_seq_length=max_seq_length)]
        return [
            self.example(messages, tools=row.tools, train_on=train_on, max_seq_length=max_seq_length)
            for messages in row.conversations()
        ]

    def left_out(self, row: Content) -> set[str]:
        """What the template silently leaves out of a row: "reasoning", "tool calls", "tools"."""
        moment = self._moment or datetime.now()

        def render(turns: Sequence[Message], tools: Sequence[Any] | None) -> str:
            return self._render(turns, tools, moment=moment).text

        return set().union(*(left_out(plain(messages), row.tools, render) for messages in row.conversations()))

    def text_example(self, text: str, *, max_seq_length: int | None = None) -> Example:
        """Plain text for training, without a chat template: every token is trained, EOS included."""
        ids = [*self.plain_ids(text), *self._eos]
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
        template = self._templates.get("tool_use" if tools and "tool_use" in self._templates else "default")
        if template is None:
            raise _no_template(has_others=bool(self._templates))

        def render(turns: Sequence[Message], offered: Sequence[Any] | None) -> str:
            guarded = [self._tokens.guard(visible_fields(one), answer=one["role"] == "assistant") for one in turns]
            offered, at = self._tokens.guard(offered), moment or self._moment
            return template.render(guarded, tools=offered, add_generation_prompt=prompt, moment=at)

        try:
            return self._tokens.mark(render(messages, tools))
        except TrainerError as error:
            raise refusal(error, messages, tools, render) from error

    def _answer_spans(
        self, messages: list[dict[str, Any]], tools: Sequence[Any] | None, full: Marked, moment: datetime
    ) -> list[tuple[int, int]]:
        """The character spans of the trained answers in `full`, up to the end of their turns.

        An answer begins where the conversation before it ends with a generation prompt, so what the model is given at
        inference is never trained.
        """

        def render(turns: Sequence[Message], *, prompt: bool = False) -> str:
            return self._render(turns, tools, prompt=prompt, moment=moment).text

        answers = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
        if len(full.spans) == len(answers):  # the template marks them itself with generation blocks
            found = list(full.spans)
        else:
            found = [self._answer_span(messages, at, full, render) for at in answers]
        return [span for at, span in zip(answers, found, strict=True) if messages[at].get("weight", 1) != 0]

    def _answer_span(
        self, messages: list[dict[str, Any]], at: int, full: Marked, render: Callable[..., str]
    ) -> tuple[int, int]:
        start = answer_start(messages, at, full.text, render)
        after = render(messages[: at + 1])
        ends = [len(after)] if full.text.startswith(after) else []
        stop = self._tokens.end_of_next(full.text, start=start, ids=self.stop_ids)
        ends += [stop] if stop is not None else []
        return start, min(ends, default=len(full.text))

    def _find_stop_ids(self, folder: Path, named: Mapping[str, str]) -> frozenset[int]:
        """Tokens that end an answer: the config's EOS tokens, and the one that the template writes after answers."""
        listed = [read_json_if_any(folder / name).get("eos_token_id") for name in (GENERATION, "config.json")]
        named_ids = next((one for one in listed if one is not None), None)
        found = {one for one in (named_ids if isinstance(named_ids, list) else [named_ids]) if isinstance(one, int)}
        end = self._tokens.special_id(named.get("eos_token", ""))
        probe = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]
        try:
            before = self._render(probe[:1], None, prompt=True).text
            rest = self._render(probe, None).text.removeprefix(before)
            turn_end = self._tokens.first_special(rest, start=rest.rfind("B") + 1)
        except TrainerError:  # its error is raised when a conversation is rendered
            turn_end = None
        return frozenset(found | {one for one in (end, turn_end) if one is not None})


class _Sides(NamedTuple):
    """What the encoder and the decoder of an encoder–decoder model read of a row, in tokens, before truncation."""

    source: list[int]
    answer: list[int]
    is_trained: bool


class Seq2SeqRenderer(Renderer):
    """For encoder–decoder models: the encoder reads the conversation, the decoder writes the last answer.

    An example is the encoder's input, the decoder start token `start`, and the answer. Both texts get the tokens that
    the tokenizer adds around every text, and the answer always ends with EOS.
    """

    def __init__(self, folder: Path, start: int, *, moment: datetime | None = None) -> None:
        super().__init__(folder, moment=moment)
        self.start: int = start
        self._suffix = self._tokens.last_ids()
        has_stop = any(one in self.stop_ids for one in self._suffix)
        self._answer_end = self._suffix if has_stop else [*self._suffix, *self._eos]

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> list[int]:
        """The encoder's input."""
        return [*self._prefix, *super().prompt_ids(messages, tools), *self._suffix]

    def example(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Any] | None = None,
        train_on: Literal["answers", "everything"] = "answers",
        max_seq_length: int | None = None,
    ) -> Example:
        """The conversation before the last answer, and that answer, which is trained. Turns after it are left out.

        In a row that is too long, first the end of the conversation is cut, down to half of the length, and then the
        end of the answer.
        """
        return self._fitted([self._sides(messages, tools, train_on)], max_seq_length)[0]

    def examples(
        self,
        row: Content,
        *,
        train_on: Literal["answers", "everything"] = "answers",
        max_seq_length: int | None = None,
    ) -> list[Example]:
        """As for other models. Where there are two answers, they are compared, so both are to the same cut source."""
        if row.text is not None:
            return [self.text_example(row.text)]
        return self._fitted([self._sides(one, row.tools, train_on) for one in row.conversations()], max_seq_length)

    def _sides(self, messages: Sequence[Message], tools: Sequence[Any] | None, train_on: str) -> _Sides:
        if train_on == "everything":
            raise _no_answer("data.train_on is everything, and an encoder–decoder model can only be trained on answers")
        answers = [at for at, message in enumerate(messages) if message.get("role") == "assistant"]
        if not answers or answers[-1] == 0:
            raise _no_answer("It has no answer of the assistant to an earlier message")
        last = plain(messages)[answers[-1]]
        if last.get("tool_calls") or not isinstance(last.get("content"), str):
            raise _no_answer("Its last answer is not text")
        source = self.prompt_ids(messages[: answers[-1]], tools)
        answer, _ = self._tokens.encode(self._tokens.mark(self._tokens.guard(last["content"], answer=True)).text)
        written = [self.start, *self._prefix, *answer, *self._answer_end]
        return _Sides(source, written, is_trained=last.get("weight", 1) != 0)

    def _fitted(self, rows: list[_Sides], longest: int | None) -> list[Example]:
        """Examples of at most `longest` tokens, whose sources are all cut for the longest of the answers."""
        answers, room = [one.answer for one in rows], None
        if longest is not None:
            answers = [one.answer[: max(longest // 2, longest - len(one.source))] for one in rows]
            room = longest - max(map(len, answers))
        found = []
        for one, answer in zip(rows, answers, strict=True):
            source = one.source if room is None else self._cut(one.source, room)
            trained = [False] * (len(source) + 1) + [one.is_trained] * (len(answer) - 1)
            whole = len(one.source) + len(one.answer)
            found.append(Example([*source, *answer], trained, whole=whole, source=len(source)))
        return found

    def text_example(self, text: str, *, max_seq_length: int | None = None) -> Example:
        raise _no_answer("It is plain text, and an encoder–decoder model is trained on answers to prompts")

    def general_example(self, text: str, *, longest: int) -> Example:
        """The encoder reads the first half of a text, and the second is trained."""
        ids = self.plain_ids(text)[:longest]
        source = [*ids[: len(ids) // 2], *self._suffix]
        rest = ids[len(ids) // 2 :]
        trained = [False] * (len(source) + 1) + [True] * len(rest)
        return Example([*source, self.start, *rest], trained, whole=len(trained), source=len(source))

    def _cut(self, source: list[int], length: int) -> list[int]:
        """Cut the encoder's input to `length` tokens, keeping the tokenizer's suffix."""
        suffix = self._suffix if len(source) > length else []
        return [*source[: length - len(suffix)], *suffix]


def _no_template(*, has_others: bool) -> TrainerError:
    what = "no chat template for a conversation without tools" if has_others else "no chat template"
    fix = "Choose an instruction-tuned base model, which has one. Without one, only plain text can be used."
    return TrainerError("user_config", f"The base model has {what}.", fix)


def _no_answer(text: str) -> TrainerError:
    fix = "Use rows with a question and a text answer, or a causal base model."
    return TrainerError("dataset_invalid", f"{text}.", fix)
