"""Chat templates: the one that most models have, one by name, or one written out.

The named ones are written here from the formats' public descriptions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from plait.errors import InputError, nearest

_ALPACA = """{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{{- message['content'] + '\\n\\n' -}}
{%- elif message['role'] == 'user' -%}
{{- '### Instruction:\\n' + message['content'] + '\\n\\n' -}}
{%- elif message['role'] == 'assistant' -%}
{{- '### Response:\\n' + message['content'] + eos_token + '\\n\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '### Response:\\n' -}}
{%- endif -%}
"""

_CHATML = """{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

_LLAMA3 = """{{- bos_token -}}
{%- for message in messages -%}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}
{{- message['content'] | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""

_MISTRAL = """{{- bos_token -}}
{%- set opening = namespace(text='') -%}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{%- set opening.text = message['content'] + '\\n\\n' -%}
{%- elif message['role'] == 'user' -%}
{{- '[INST] ' + opening.text + message['content'] + ' [/INST]' -}}
{%- set opening.text = '' -%}
{%- else -%}
{{- ' ' + message['content'] | trim + eos_token -}}
{%- endif -%}
{%- endfor -%}
"""

_EXAONE = """{%- for message in messages -%}
{%- if loop.first and message['role'] != 'system' -%}
{{- '[|system|][|endofturn|]\\n' -}}
{%- endif -%}
{{- '[|' + message['role'] + '|]' + message['content'] -}}
{{- '\\n' if message['role'] == 'user' else '[|endofturn|]\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '[|assistant|]' -}}
{%- endif -%}
"""

#: Templates by name.
CHAT_TEMPLATES = {
    "alpaca": _ALPACA,
    "chatml": _CHATML,
    "exaone": _EXAONE,
    "llama3": _LLAMA3,
    "mistral": _MISTRAL,
}


def resolve_chat_template(spec: str | None, templates: Iterable[str | None]) -> str | None:
    """The Jinja text that a recipe's `chat_template` means.

    Args:
        spec: None, `auto`, a name, or Jinja text.
        templates: the models' own templates, in their order; None for a model that has none.

    Returns:
        The text; None leaves the output with the template that its tokenizer brings. `auto` takes the one
        that most models have, the first of those that are equally frequent.

    Raises:
        InputError: it is neither a known name nor a template.
    """
    if not spec:
        return None
    if spec == "auto":
        counts = Counter(template.strip() for template in templates if template and template.strip())
        return counts.most_common(1)[0][0] if counts else None
    if spec in CHAT_TEMPLATES:
        return CHAT_TEMPLATES[spec]
    if "{{" in spec or "{%" in spec:
        return spec
    shown = spec if len(spec) <= 60 else spec[:57] + "..."
    raise InputError(
        f"`chat_template` is `{shown}`, which is neither a template's name nor Jinja text",
        where="the recipe",
        hint=nearest(spec, ("auto", *CHAT_TEMPLATES)),
    )


def read_chat_template(folder: Path) -> str | None:
    """The chat template of the model in a folder, if it has one (its default one, if it has several)."""
    from plait.checkpoint import read_json, read_text  # here, as it takes torch

    text = folder / "chat_template.jinja"
    if text.is_file():
        return read_text(text)
    for name in ("chat_template.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file() and (found := _default(read_json(path).get("chat_template"))):
            return found
    return None


def _default(template: Any) -> str | None:
    """Several templates are a mapping, or a list of `{name, template}`; the one called `default` counts."""
    if isinstance(template, list):
        template = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else None
