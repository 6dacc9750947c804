"""The JSON schema of an answer, made from the site pack and the urgencies of the contract.

Strict in the way that constrained decoding understands everywhere: every property required, none beside them, names as
enumerations. Lengths and ranges are checked on arrival instead, since many endpoints refuse those keywords.
"""

from typing import Any, get_args

from quickcomm.contracts.insight import Urgency
from quickcomm.intelligence.model.prompt_file import AnswerParameters
from quickcomm.kernel.site_pack import SitePack

Schema = dict[str, Any]


def answer_schema(pack: SitePack, answer: AnswerParameters) -> Schema:
    """`{"insights": [...]}`, with the optional fields that `answer` asks for."""
    text: Schema = {"type": "string"}
    insight = {
        "intent": _names(pack.intents),
        "department": _names(pack.departments),
        "urgency": _names(get_args(Urgency)),
        "rooms": _list(text),
        "items": _list(_table({"name": text, "quantity": {"type": "integer"}})),
    }
    if answer.summary:
        insight["summary"] = text
    if answer.confidence:
        insight["confidence"] = {"type": "number"}
    if answer.evidence:
        insight["evidence"] = _table({"rooms": _list(text), "items": _list(text), "urgency": _list(text)})
    return _table({"insights": _list(_table(insight))})


def _names(names: Any) -> Schema:
    return {"type": "string", "enum": list(names)}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _table(properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
