"""Text as TRL's data sets hold it, as tokens of which some count: text, messages, prompt and completion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plait.errors import InputError
from plait.tasks._chat import Messages, assistant, common, messages, written

_FORMS = "`text`, `messages`, or `prompt` and `completion`"


@dataclass(frozen=True)
class Tokens:
    """A document.

    Args:
        ids: its tokens.
        counted: for each token, whether its loss counts.
    """

    ids: list[int]
    counted: list[bool]

    def cut(self, length: int | None) -> Tokens:
        """Its beginning, of at most so many tokens."""
        return Tokens(self.ids[:length], self.counted[:length])

    @property
    def useful(self) -> bool:
        """Whether a token counts that has another before it."""
        return any(self.counted[1:])


@dataclass(frozen=True)
class Reader:
    """Makes tokens of rows.

    Args:
        tokenizer: of transformers.
        completion_only: whether a prompt's tokens count; None for not.
        assistant_only: whether only what the assistant says counts, in messages.
    """

    tokenizer: Any
    completion_only: bool | None
    assistant_only: bool

    def __call__(self, row: Mapping[str, Any], where: str) -> Tokens:
        """The tokens of a row.

        Raises:
            InputError: it is of none of the forms, or options ask for what it has not.
        """
        forms = _forms(row)
        if len(forms) > 1:
            what = f"a row has {' and also '.join(forms)}"
            raise InputError(what, where=where, hint="leave one form, and give other columns other names")
        if row.get("messages") is not None:
            self._no_prompt(where)
            return self._chat(messages(row["messages"], "messages", where), row.get("tools"), where)
        if row.get("prompt") is not None and row.get("completion") is not None:
            return self._completion(row, where)
        if self.assistant_only:
            raise InputError(
                "only messages have an assistant", where=where, hint="leave out assistant_only_loss"
            )
        if isinstance(row.get("text"), str):
            self._no_prompt(where)
            ids = self._ended(self.tokenizer(row["text"])["input_ids"])
            return Tokens(ids, [True] * len(ids))
        raise InputError(f"a row has {_told(row)}", where=where, hint=f"give {_FORMS}, as TRL takes them")

    def _chat(self, said: Messages, tools: Any, where: str) -> Tokens:
        if self.assistant_only:
            return Tokens(*assistant(self.tokenizer, said, tools, where))
        ids = list(written(self.tokenizer, said, tools, where)["input_ids"])
        return Tokens(ids, [True] * len(ids))

    def _completion(self, row: Mapping[str, Any], where: str) -> Tokens:
        """A prompt's tokens are those that it has in common with prompt and completion together.

        Nothing counts of an empty completion, as nothing does of an empty text.
        """
        prompt, completion = row["prompt"], row["completion"]
        if isinstance(prompt, str) and isinstance(completion, str):
            if self.assistant_only:
                hint = "leave out assistant_only_loss"
                raise InputError("only messages have an assistant", where=where, hint=hint)
            before = self.tokenizer(prompt)["input_ids"]
            ids = self._ended(self.tokenizer(prompt + completion)["input_ids"])
        elif isinstance(prompt, str) or isinstance(completion, str):
            raise InputError("`prompt` and `completion` differ in kind", where=where,
                             hint="give two texts, or two lists of messages")  # fmt: skip
        else:
            asked = messages(prompt, "prompt", where)
            said = [*asked, *messages(completion, "completion", where)]
            if self.assistant_only:
                return self._chat(said, row.get("tools"), where)
            before = written(self.tokenizer, asked, row.get("tools"), where, answer=True)["input_ids"]
            ids = list(written(self.tokenizer, said, row.get("tools"), where)["input_ids"])
        start = 0
        if self.completion_only is not False:
            start = common(before, ids) if completion else len(ids)
        return Tokens(ids, [place >= start for place in range(len(ids))])

    def _no_prompt(self, where: str) -> None:
        if self.completion_only:
            raise InputError("there is no completion whose loss alone could count", where=where,
                             hint="give `prompt` and `completion`")  # fmt: skip

    def _ended(self, ids: Sequence[int]) -> list[int]:
        """Tokens that end with the end of a text."""
        end = self.tokenizer.eos_token_id
        return [*ids] if end is None or (ids and ids[-1] == end) else [*ids, end]


def check_tokenizer(tokenizer: Any, where: str) -> None:
    """Nothing if it is a tokenizer as transformers has them.

    Raises:
        InputError: it is none, such as the name of one.
    """
    has = all(hasattr(tokenizer, name) for name in ("decode", "eos_token_id", "pad_token_id"))
    if has and callable(tokenizer) and not isinstance(tokenizer, type):
        return
    name = tokenizer if isinstance(tokenizer, str) else "…"
    hint = f'give transformers.AutoTokenizer.from_pretrained("{name}")'
    told = repr(tokenizer) if isinstance(tokenizer, str | None) else f"a {type(tokenizer).__name__}"
    raise InputError(f"{told} is no tokenizer", where=where, hint=hint)


def _forms(row: Mapping[str, Any]) -> list[str]:
    """The forms that a row has."""
    names = {"`messages`": ("messages",), "`prompt` and `completion`": ("prompt", "completion"),
             "`text`": ("text",)}  # fmt: skip
    return [form for form, needs in names.items() if all(row.get(name) is not None for name in needs)]


def _told(row: Mapping[str, Any]) -> str:
    """What a row has, and that it is nothing, where it is."""
    if "text" in row:
        return "no `text`: it is None" if row["text"] is None else f"a {type(row['text']).__name__} as `text`"
    void = [f"`{name}`, which is None" if row[name] is None else f"`{name}`" for name in row]
    return ", ".join(void) or "nothing"


def text_bytes(tokenizer: Any, tokens: Tokens) -> int:
    """How many bytes of text the counted tokens stand for, the first token's left out.

    A run's bytes are those of the text up to its end without those up to its start, so that tokens that begin
    with a space keep it.
    """
    total, place, length = 0, 1, len(tokens.ids)
    while place < length:
        stop = place
        while stop < length and tokens.counted[stop]:
            stop += 1
        if stop > place:
            total += _size(tokenizer, tokens.ids[:stop]) - _size(tokenizer, tokens.ids[:place])
        place = stop + 1
    return total


def _size(tokenizer: Any, ids: list[int]) -> int:
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return len(text.encode("utf-8", errors="replace"))
